"""MODEL_CARD.md: what the bundle is, how it was made, how good it is and what it is not.

Every sentence is either true of any bundle, computed from the run folder, or handed in by whoever exports.
"""

import hashlib
import json
from pathlib import Path

from infer.manifest import MEMBERS, Manifest
from train.metrics import GREY_ZONE_COUNT

Figures = dict[str, dict[str, float]]
PICTURES_ONLY = ("moe, pictures only", "baseline, pictures only", "scan, pictures only")
SMALLEST_INFLUENCE = 0.05  # of a member on the ensemble's probability, between its 5% and 95% quantile


def write_card(run: Path, manifest: Manifest, manifest_bytes: bytes, parity: float, about: str) -> str:
    """The card as Markdown.

    Args:
        parity: largest difference between graphs and networks.
        about: what the exporter adds on the data.
    """
    figures: Figures = json.loads((run / "ensemble" / "metrics.json").read_text())
    neighbours: dict[str, float] = json.loads((run / "scan" / "neighbours.json").read_text())
    bundle_id = hashlib.sha256(manifest_bytes).hexdigest()
    sections = [
        ["# Model card", f"Bundle `{bundle_id}`,\nmade {manifest.provenance.created} by lympho "
         f"{manifest.provenance.code_version}."],
        _purpose(),
        _making(manifest, parity, about),
        _quality(figures, manifest),
        _ensemble(figures, manifest),
        _operating_points(figures, manifest),
        _cell_classes(neighbours),
        ["## The recipe", "\n".join(f"- `{name}` = {value}" for name, value in manifest.provenance.options.items())],
    ]  # fmt: skip
    return "\n\n".join(paragraph for section in sections for paragraph in section) + "\n"


def claims(figures: Figures, manifest: Manifest) -> dict[str, bool]:
    """Every demand on a reference bundle, and whether it holds."""
    beaten, ensemble = figures["clinical GaussianNB"]["auc"], figures["ensemble"]["auc"]
    held = {
        f"{name}: AUC {figures[name]['auc']:.3f} [{figures[name]['auc_low']:.3f}, {figures[name]['auc_high']:.3f}] "
        "is above chance": figures[name]["auc_low"] > 0.5
        for name in PICTURES_ONLY
    }
    spread = figures["moe gate"]["quantile_95"] - figures["moe gate"]["quantile_05"]
    influence = ", ".join(f"{name} {value:.3f}" for name, value in figures["influence"].items())
    return held | {
        f"the gate is not constant: 90% of the patients lie within a range of {spread:.3f}": spread > 0.05,
        f"every member has weight and moves the ensemble by {SMALLEST_INFLUENCE} or more between its 5% and 95% "
        f"quantile: {influence}": min(figures["influence"].values()) >= SMALLEST_INFLUENCE
        and min(manifest.ensemble.weights.values()) > 0.01,
        f"the ensemble's AUC {ensemble:.3f} is above that of Gaussian naive Bayes on sex, count and age alone, "
        f"{beaten:.3f} on the same folds": ensemble > beaten,
    }


def _purpose() -> list[str]:
    return [
        "## What it is for",
        "It estimates how likely a patient's lymphocytosis is malignant rather than reactive, from pictures of 10 or\n"
        "more single lymphocytes, sex, age and lymphocyte count, to help decide who goes on to flow cytometry.",
        "**It is not a medical device.** No clinical study stands behind it. It must not decide about a patient alone.",
    ]


def _making(manifest: Manifest, parity: float, about: str) -> list[str]:
    source, data = manifest.provenance, manifest.provenance.data_summary
    return [
        "## How it was made",
        "\n".join(
            [
                f"- {data['patients']} patients ({data['malignant']} malignant, {data['reactive']} reactive) with "
                f"{data['images']} pictures; ages at {source.reference_date}.",
                f"- `python -m train all`, recipe `{source.recipe}`, seed {source.seed}; then `python -m export`.",
                "- Each member is trained on all patients with a fixed schedule and averaged weights; no epoch is picked.",
                "- Calibration, weights and operating points are fitted on 5-fold out-of-fold predictions alone.",
                f"- Graphs: ONNX opset {manifest.opset}; probabilities differ from torch by {parity:.1e} at most.",
            ]
        ),
        *([about.strip()] if about.strip() else []),
    ]


def _quality(figures: Figures, manifest: Manifest) -> list[str]:
    grey = figures["ensemble"]
    data = manifest.provenance.data_summary
    above = data["patients"] - grey["grey_zone_patients"]
    malignant_above = data["malignant"] - grey["grey_zone_malignant"]
    listed = "\n".join(
        f"- {'holds' if holds else '**FAILS**'}: {claim}" for claim, holds in claims(figures, manifest).items()
    )
    return [
        "## How good it is",
        "Out of fold on the training patients: 5 folds, stratified, the same for all members. Threshold .5 for balanced\n"
        "accuracy. 95% intervals by bootstrap over patients (2,000 resamples, seed 0). Grey zone: count <= "
        f"{GREY_ZONE_COUNT},\n{grey['grey_zone_patients']:.0f} patients, {grey['grey_zone_malignant']:.0f} of them "
        f"malignant; above it {malignant_above:.0f} of {above:.0f} are. The ensemble's row is cross-fitted:\n"
        "calibration and weights come from the other folds.",
        _table(figures),
        "The estimates are not nested, and SCAN's stages saw all pictures, those of held-out patients included (never a\n"
        "label): `scan` and the ensemble are transductive and may be slightly optimistic.",
        "`pictures only`: for moe the image expert's probability; for the baseline with everybody's clinical values set\n"
        "to the median of the held-out fold; for scan the features without sex, count and age.",
        "### What is demanded of a reference bundle",
        listed,
    ]


def _ensemble(figures: Figures, manifest: Manifest) -> list[str]:
    rows = ["| member | weight | calibration slope | intercept | influence |", "|---|---|---|---|---|"]
    for name in MEMBERS:
        one = manifest.ensemble.calibration[name]
        rows.append(
            f"| {name} | {manifest.ensemble.weights[name]:.3f} | {one.slope:.3f} | {one.intercept:.3f} "
            f"| {figures['influence'][name]:.3f} |"
        )
    gate = " / ".join(f"{value:.3f}" for value in figures["moe gate"].values())
    return [
        "### Members in the ensemble",
        "\n".join(rows),
        f"Image expert's share in the mixture, out of fold, quantiles 5 / 25 / 50 / 75 / 95: {gate}.",
    ]


def _operating_points(figures: Figures, manifest: Manifest) -> list[str]:
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
        "Between the two thresholds the decision is `refer`. `balanced`: the narrowest band around the threshold of best\n"
        "balanced accuracy outside which balanced accuracy is .95, or the widest that refers a quarter. `sensitivity-N`:\n"
        "nobody above the threshold that keeps N% of the malignant is called reactive. The shares are cross-fitted: the\n"
        "thresholds that decide about a patient come from the other folds.",
    ]


def _cell_classes(neighbours: dict[str, float]) -> list[str]:
    return [
        "### Cell classes",
        f"{neighbours['own_patient_share']:.1%} of a cell's nearest neighbours in the SimCLR embedding come from its "
        f"own patient;\nby chance {neighbours['own_patient_share_by_chance']:.1%} would. The further the first lies "
        "above the second, the more the classes can follow a\npatient's stain instead of the cell's shape.",
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
