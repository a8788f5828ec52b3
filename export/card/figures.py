"""The model card's tables: nested results if available, out-of-fold results, members, operating points."""

from typing import Any

import pandas as pd

from infer.bundle.manifest import AGREEING, Manifest
from infer.scoring.ensemble import SMALLEST_SAY
from train.evaluation.nested import report
from train.evaluation.nested.stacking import SHIPPED, without
from train.evaluation.nested.tables import CLINICAL_ONLY
from train.members import registry

Figures = dict[str, dict[str, float]]
BRIEF = ("balanced_accuracy", "auc", "brier_score")


def in_full() -> tuple[str, ...]:
    """Models whose nested results are given in full."""
    return ("count cut-off", *CLINICAL_ONLY, *registry.names(), SHIPPED)


def claims(figures: Figures, manifest: Manifest) -> dict[str, bool]:
    """The requirements for a reference bundle, and whether each is met."""
    beaten, ensemble = figures["clinical GaussianNB"]["auc"], figures["ensemble"]["auc"]
    held = {
        f"{name}: AUC {figures[name]['auc']:.3f} [{figures[name]['auc_low']:.3f}, {figures[name]['auc_high']:.3f}] "
        "is above chance": figures[name]["auc_low"] > 0.5
        for name in (f"{member}, pictures only" for member in registry.names() if member in manifest.members)
    }
    for title in _spreads(manifest):
        spread = figures[title]["quantile_95"] - figures[title]["quantile_05"]
        held[f"the {title} is not constant: 90% of the patients lie within a range of {spread:.3f}"] = spread > 0.05
    return held | {
        f"the ensemble's AUC {ensemble:.3f} is above that of Gaussian naive Bayes on sex, count and age alone, "
        f"{beaten:.3f} on the same folds": ensemble > beaten,
    }


def nested(found: dict[str, Any] | None) -> list[str]:
    """The section on RUN/nested/figures.json: unbiased results of the recipe.

    Args:
        found: content of the file; None if the protocol has not been run in this run folder.
    """
    if found is None:
        return [
            "### Nested evaluation",
            "Not available for this bundle. The results below are out-of-fold but not nested: they may be optimistic.",
        ]
    everything = pd.DataFrame(found["performance"])
    performance = everything[everything["model"].isin(in_full())]
    groups = list(performance["group"].unique())
    differences = pd.DataFrame(found["differences"])
    points = pd.DataFrame(found["operating_points"])
    facts = found["facts"]
    return [
        "### Nested evaluation",
        "This evaluates the procedure that made this bundle, repeated inside each fold, not this bundle itself: "
        f"{facts['protocol']}. Recipe {facts['recipe']}. Code {facts['code']}. Chosen inside the folds: "
        f"{facts['chosen inside']}. Chosen outside: {facts['chosen outside']}. Models compared: {facts['models']}.",
        report.HOW,
        *(f"{group.capitalize()}:\n\n{report.wide(performance, group, report.SHOWN)}" for group in groups[:2]),
        f"Referral to flow cytometry:\n\n{report.wide(performance, groups[0], report.SENT_ON)}",
        f"Subgroups, AUC:\n\n{report.by_group(performance, 'auc')}",
        f"Subgroups, balanced accuracy:\n\n{report.by_group(performance, 'balanced_accuracy')}",
        "All models tried, difference in AUC from sex, count and age alone, paired:\n\n"
        + report.long(
            differences[(differences["figure"] == "auc") & differences["against"].isin(CLINICAL_ONLY)].drop(
                columns="figure"
            )
        ),
        *_blind(found),
        *_weights(found),
        f"Operating points:\n\n{report.long(points[points['model'] == SHIPPED].drop(columns='model'))}",
    ]


def _blind(found: dict[str, Any]) -> list[str]:
    """What each model loses by pictures that are not the patient's own; empty for results of earlier versions."""
    if not found.get("blind"):
        return []
    blind = pd.DataFrame(found["blind"])
    some = blind[blind["model"].isin(in_full())]
    return [f"By pictures that are not the patient's own. {report.BLIND}", report.without_seeing(some)]


def _weights(found: dict[str, Any]) -> list[str]:
    """How the weights vary over the folds, and what the ensemble is worth without each member."""
    chosen = [one for one in found["chosen"] if one["model"] == SHIPPED]
    performance, differences = pd.DataFrame(found["performance"]), pd.DataFrame(found["differences"])
    lacking = [without(name) for name in registry.names()]
    some = performance[performance["model"].isin([SHIPPED, *lacking])]
    lost = differences[differences["against"].isin(lacking) & (differences["figure"] == "auc")]
    groups = list(some["group"].unique())[:2]
    return [
        "Weights of the ensemble, mean [smallest to largest] over the outer folds: "
        f"{', '.join(report.weight_spread(chosen))}.",
        *(f"With and without each member, {group}:\n\n{report.wide(some, group, BRIEF)}" for group in groups),
        f"Difference in AUC from the ensemble without a member, paired:\n\n{report.long(lost.drop(columns='figure'))}",
    ]


def above_grey_zone(figures: Figures, manifest: Manifest) -> tuple[int, int]:
    """Patients with a larger count than the grey zone's, and how many of them are malignant."""
    grey, data = figures["ensemble"], manifest.provenance.data_summary
    return (
        data["patients"] - round(grey["grey_zone_patients"]),
        data["malignant"] - round(grey["grey_zone_malignant"]),
    )


def out_of_fold(figures: Figures, manifest: Manifest, pictures_only: str) -> list[str]:
    """The section on out-of-fold results: of models trained with the same hyperparameters on four of five folds.

    Args:
        pictures_only: what gives each member's probability without sex, count and age.
    """
    grey = figures["ensemble"]
    above, malignant_above = above_grey_zone(figures, manifest)
    listed = "\n".join(
        f"- {'holds' if holds else '**FAILS**'}: {claim}" for claim, holds in claims(figures, manifest).items()
    )
    return [
        "### Out of fold",
        "5 stratified folds, the same for all members; threshold .5 for balanced accuracy; bootstrap with seed 0. Grey "
        f"zone: {grey['grey_zone_patients']:.0f} patients, {grey['grey_zone_malignant']:.0f} of them malignant; above "
        f"it {malignant_above} of {above} are malignant. The ensemble's row is cross-fitted: calibration and "
        "weights come from the other folds. These estimates are not nested.",
        _table(figures),
        f"`pictures only`: {pictures_only}.",
        "### Requirements for a reference bundle",
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
        "Calibration, weights and operating points are fitted only on 5-fold out-of-fold predictions. Influence: how "
        "much the ensemble's probability changes between a member's 5% and 95% quantile.",
        *(_spread(figures, title) for title in _spreads(manifest)),
    ]


def _spread(figures: Figures, title: str) -> str:
    quantiles = " / ".join(f"{value:.3f}" for value in figures[title].values())
    return f"The {title}, out of fold, quantiles 5 / 25 / 50 / 75 / 95%: {quantiles}."


def _spreads(manifest: Manifest) -> list[str]:
    """Titles of the members' own numbers whose quantiles are reported."""
    present = [member for member in registry.MEMBERS if member.name in manifest.members]
    return [title for member in present for title in member.spread_of.values()]


def operating_points(figures: Figures, manifest: Manifest) -> list[str]:
    """The thresholds in the bundle, and the cross-fitted decisions of thresholds fitted in the same way."""
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
        "The shares are cross-fitted: the thresholds applied to a patient were fitted on the other folds.",
        *_disagreement(figures, manifest),
    ]


def _disagreement(figures: Figures, manifest: Manifest) -> list[str]:
    """Who is referred whatever the probability; empty for a bundle without a bound."""
    bound = manifest.ensemble.disagreement
    if bound is None:
        return []
    return [
        f"A patient on whom the members of weight {SMALLEST_SAY} or more lie more than {bound:.4f} apart is referred "
        "at every operating point, whatever "
        f"the probability: on {AGREEING:.0%} of the training patients, out of fold, they lie no further apart. "
        f"Cross-fitted, {figures['disagreement']['referred']:.1%} of the patients are referred for it; the shares "
        "above count them."
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
        return "undefined, the zone has only one class"
    return f"{values[name]:.3f} [{values[f'{name}_low']:.3f}, {values[f'{name}_high']:.3f}]"
