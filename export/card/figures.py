"""The model card's tables: nested figures where the protocol has run, out-of-fold ones, members, operating points."""

from typing import Any

import pandas as pd

from infer.bundle.manifest import Manifest
from train.evaluation.nested import report
from train.evaluation.nested.members import GATED_SIMCLR, SHIPPED, SIMCLR, with_simclr
from train.evaluation.nested.tables import CLINICAL_ONLY
from train.members import registry

Figures = dict[str, dict[str, float]]
SMALLEST_INFLUENCE = 0.05  # of a member on the ensemble's probability, between its 5% and 95% quantile
BRIEF = ("balanced_accuracy", "auc", "brier_score")


def in_full() -> tuple[str, ...]:
    """Models whose nested figures the card gives in full."""
    return ("count cut-off", *CLINICAL_ONLY, *registry.names(), SHIPPED)


def of_pictures() -> tuple[str, ...]:
    """Models that depend on SCAN or SimCLR."""
    return ("scan", SIMCLR, SHIPPED, *with_simclr(), *GATED_SIMCLR)


def claims(figures: Figures, manifest: Manifest) -> dict[str, bool]:
    """Every demand on a reference bundle, and whether it holds."""
    beaten, ensemble = figures["clinical GaussianNB"]["auc"], figures["ensemble"]["auc"]
    held = {
        f"{name}: AUC {figures[name]['auc']:.3f} [{figures[name]['auc_low']:.3f}, {figures[name]['auc_high']:.3f}] "
        "is above chance": figures[name]["auc_low"] > 0.5
        for name in (f"{member}, pictures only" for member in registry.names())
    }
    if "moe gate" in figures:
        spread = figures["moe gate"]["quantile_95"] - figures["moe gate"]["quantile_05"]
        held[f"the gate is not constant: 90% of the patients lie within a range of {spread:.3f}"] = spread > 0.05
    influence = ", ".join(f"{name} {value:.3f}" for name, value in figures["influence"].items())
    return held | {
        f"every member has weight and moves the ensemble by {SMALLEST_INFLUENCE} or more between its 5% and 95% "
        f"quantile: {influence}": min(figures["influence"].values()) >= SMALLEST_INFLUENCE
        and min(manifest.ensemble.weights.values()) > 0.01,
        f"the ensemble's AUC {ensemble:.3f} is above that of Gaussian naive Bayes on sex, count and age alone, "
        f"{beaten:.3f} on the same folds": ensemble > beaten,
    }


def nested(found: dict[str, Any] | None) -> list[str]:
    """What RUN/nested/figures.json holds: the recipe's honest figures.

    Args:
        found: the file's content; none if the protocol has not run in this run folder.
    """
    if found is None:
        return [
            "### Nested evaluation",
            "Not made for this bundle. The figures below are out of fold, not nested: they may be optimistic.",
        ]
    everything = pd.DataFrame(found["performance"])
    performance = everything[everything["model"].isin(in_full())]
    groups = list(performance["group"].unique())
    differences = pd.DataFrame(found["differences"])
    points = pd.DataFrame(found["operating_points"])
    facts = found["facts"]
    return [
        "### Nested evaluation",
        f"Of what made this bundle, done again inside each fold, not of this very bundle: {facts['protocol']}. Recipe "
        f"{facts['recipe']}. Code {facts['code']}. Chosen inside: {facts['chosen inside']}. Chosen outside: "
        f"{facts['chosen outside']}. Looked at: {facts['models']}.",
        report.HOW,
        *(f"{group.capitalize()}:\n\n{report.wide(performance, group, report.SHOWN)}" for group in groups[:2]),
        f"Whom to send on to flow cytometry:\n\n{report.wide(performance, groups[0], report.SENT_ON)}",
        f"Subgroups, AUC:\n\n{report.by_group(performance, 'auc')}",
        f"Subgroups, balanced accuracy:\n\n{report.by_group(performance, 'balanced_accuracy')}",
        "What was tried, AUC against sex, count and age alone, paired:\n\n"
        + report.long(differences[differences["figure"] == "auc"].drop(columns="figure")),
        f"Operating points:\n\n{report.long(points[points['model'] == SHIPPED].drop(columns='model'))}",
    ]


def inductive(found: dict[str, Any] | None) -> list[str]:
    """What RUN/nested_inductive/figures.json holds of whatever uses SCAN or SimCLR; nothing where it is not there."""
    if found is None:
        return []
    performance = pd.DataFrame(found["performance"])
    performance = performance[performance["model"].isin(of_pictures())]
    everybody, grey = list(performance["group"].unique())[:2]
    differences = pd.DataFrame(found["differences"])
    some = differences[(differences["figure"] == "auc") & differences["model"].isin(of_pictures())]
    return [
        "### Nested evaluation, inductive",
        "Networks have not been trained on a new patient's pictures, labelled or not. Here neither have SCAN and "
        f"SimCLR on those of the held-out: {found['facts']['cell classes']}. {found['facts']['protocol']}. Code "
        f"{found['facts']['code']}. {everybody.capitalize()}:",
        report.wide(performance, everybody, BRIEF),
        f"{grey.capitalize()}:",
        report.wide(performance, grey, BRIEF),
        "AUC against sex, count and age alone, paired:",
        report.long(some.drop(columns="figure")),
    ]


def out_of_fold(figures: Figures, manifest: Manifest) -> list[str]:
    """Figures of the very networks' siblings: trained with the same numbers on four of five folds."""
    grey, data = figures["ensemble"], manifest.provenance.data_summary
    above = data["patients"] - grey["grey_zone_patients"]
    malignant_above = data["malignant"] - grey["grey_zone_malignant"]
    listed = "\n".join(
        f"- {'holds' if holds else '**FAILS**'}: {claim}" for claim, holds in claims(figures, manifest).items()
    )
    return [
        "### Out of fold",
        "5 folds, stratified, the same for all members; threshold .5 for balanced accuracy; bootstrap of seed 0. Grey "
        f"zone: {grey['grey_zone_patients']:.0f} patients, {grey['grey_zone_malignant']:.0f} of them malignant; above "
        f"it {malignant_above:.0f} of {above:.0f} are. The ensemble's row is cross-fitted: calibration and weights "
        "come from the other folds. The estimates are not nested.",
        _table(figures),
        "`pictures only`: for moe what the first mixture's image expert says; for the baseline with everybody's "
        "clinical values set to the median of the held-out fold; for scan and imagenet a model without sex, count and "
        "age.",
        "### What is demanded of a reference bundle",
        listed,
    ]


def member_table(figures: Figures, manifest: Manifest) -> list[str]:
    """Weight, calibration and influence of each member, and the gate."""
    rows = ["| member | weight | calibration slope | intercept | influence |", "|---|---|---|---|---|"]
    for name in manifest.members:
        one = manifest.ensemble.calibration[name]
        rows.append(
            f"| {name} | {manifest.ensemble.weights[name]:.3f} | {one.slope:.3f} | {one.intercept:.3f} "
            f"| {figures['influence'][name]:.3f} |"
        )
    return [
        "\n".join(rows),
        "Calibration, weights and operating points are fitted on 5-fold out-of-fold predictions alone. Influence: by "
        "how much a member moves the ensemble between its 5% and 95% quantile.",
        *_gate(figures),
    ]


def _gate(figures: Figures) -> list[str]:
    if "moe gate" not in figures:
        return []
    gate = " / ".join(f"{value:.3f}" for value in figures["moe gate"].values())
    return [f"Image expert's share in the first mixture, out of fold, quantiles 5 / 25 / 50 / 75 / 95: {gate}."]


def operating_points(figures: Figures, manifest: Manifest) -> list[str]:
    """Thresholds that ship, and what such thresholds did to the other folds' patients."""
    rows = [
        "| operating point | reactive below | malignant from | referred | malignant: called malignant / reactive "
        "| reactive: called reactive / malignant |",
        "|---|---|---|---|---|---|",
    ]
    for name, point in sorted(manifest.ensemble.operating_points.items()):
        found = figures[f"operating point {name}"]
        rows.append(
            f"| {name} | {point.refer_low:.4f} | {point.refer_high:.4f} | {found['referred']:.1%} "
            f"| {found['malignant_called_malignant']:.1%} / {found['malignant_called_reactive']:.1%} "
            f"| {found['reactive_called_reactive']:.1%} / {found['reactive_called_malignant']:.1%} |"
        )
    return [
        "### Operating points",
        "\n".join(rows),
        "The shares are cross-fitted: the thresholds that decide about a patient come from the other folds.",
    ]


def _table(figures: Figures) -> str:
    rows = ["| out of fold | balanced accuracy | AUC [95%] | grey-zone AUC [95%] |", "|---|---|---|---|"]
    for name, values in figures.items():
        if "auc" in values:
            rows.append(
                f"| {name} | {values['balanced_accuracy']:.3f} "
                f"| {_interval(values, 'auc')} | {_interval(values, 'grey_zone_auc')} |"
            )
    return "\n".join(rows)


def _interval(values: dict[str, float], name: str) -> str:
    if name not in values:
        return "not measurable, the zone lacks a class"
    return f"{values[name]:.3f} [{values[f'{name}_low']:.3f}, {values[f'{name}_high']:.3f}]"
