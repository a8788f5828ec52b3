"""MODEL_CARD.md: what the bundle is, how it was made, how good it is and what it is not."""

import hashlib
import json
from pathlib import Path

from infer.manifest import MEMBERS, Manifest

Figures = dict[str, dict[str, float]]
PICTURES_ONLY = ("moe, pictures only", "baseline, pictures only", "scan, pictures only")


def write_card(run: Path, manifest: Manifest, manifest_bytes: bytes, parity: float) -> str:
    """The card as Markdown, from the run folder's figures and the manifest."""
    figures: Figures = json.loads((run / "ensemble" / "metrics.json").read_text())
    neighbours = json.loads((run / "scan" / "neighbours.json").read_text())
    source, data = manifest.provenance, manifest.provenance.data_summary
    lines = [
        "# Model card",
        "",
        f"Bundle `{hashlib.sha256(manifest_bytes).hexdigest()}`,",
        f"made {source.created} by lympho {source.code_version}.",
        "",
        "## What it is for",
        "",
        "It estimates how likely a patient's lymphocytosis is malignant rather than reactive, from pictures of 10 or",
        "more single lymphocytes, sex, age and lymphocyte count, to help decide who goes on to flow cytometry.",
        "",
        "**It is not a medical device.** It has not been tested on patients of another hospital, another stain or",
        "another analyser, and no clinical study stands behind it. It must not decide about a patient alone.",
        "",
        "## How it was made",
        "",
        f"- Data: {data['patients']} patients ({data['malignant']} malignant, {data['reactive']} reactive), "
        f"{data['images']} pictures, one centre, one stain, one analyser. Ages at {source.reference_date}.",
        f"- Command: `python -m train all`, recipe `{source.recipe}`, seed {source.seed}; then `python -m export`.",
        "- Each member is trained on all patients with a fixed schedule and averaged weights; no epoch was picked.",
        "- Calibration, weights and operating points are fitted on 5-fold out-of-fold predictions alone.",
        f"- Graphs: ONNX opset {manifest.opset}; probabilities differ from torch by {parity:.1e} at most.",
        "",
        "Every option of the recipe:",
        "",
        *[f"- `{name}` = {value}" for name, value in source.options.items()],
        "",
        "## How good it is",
        "",
        "Out of fold on the training patients (5 folds, stratified, the same for all). Threshold .5 for balanced",
        "accuracy. 95% intervals of the AUC by bootstrap over patients (2,000 resamples, seed 0). Grey zone: count",
        f"<= 7.68, {_grey_patients(figures)} patients; above it nearly every patient is malignant, so it is the real",
        "question. The ensemble's figures are cross-fitted: calibration and weights come from other folds.",
        "",
        *_table(figures),
        "",
        "These are estimates from few patients. They are not nested: the recipe was not tuned on them, but SCAN's",
        "stages saw all pictures, those of held-out patients included (never a label), so `scan` and the ensemble are",
        "transductive and may be slightly optimistic.",
        "",
        "`pictures only`: for moe the image expert's probability; for the baseline everybody's clinical values set to",
        "the median; for scan the features without sex, count and age.",
        "",
        "### What was demanded of it",
        "",
        *[f"- {'holds' if holds else '**FAILS**'}: {claim}" for claim, holds in claims(figures, manifest).items()],
        "",
        "### Members in the ensemble",
        "",
        "| member | weight | calibration slope | intercept |",
        "|---|---|---|---|",
        *[
            f"| {name} | {manifest.ensemble.weights[name]:.3f} | {manifest.ensemble.calibration[name].slope:.3f} "
            f"| {manifest.ensemble.calibration[name].intercept:.3f} |"
            for name in MEMBERS
        ],
        "",
        f"Image expert's share in the mixture, out of fold, quantiles 5 / 25 / 50 / 75 / 95: {_gate(figures)}.",
        "",
        "| operating point | below: reactive | from: malignant | between |",
        "|---|---|---|---|",
        *[
            f"| {name} | {point.refer_low:.4f} | {point.refer_high:.4f} | refer |"
            for name, point in sorted(manifest.ensemble.operating_points.items())
        ],
        "",
        "`balanced`: the narrowest band around the threshold of best balanced accuracy outside which balanced accuracy",
        "is .95, referring a quarter at most. `sensitivity-N`: nobody above the threshold that keeps N% of the",
        "malignant is called reactive. Both were read off the out-of-fold predictions themselves, so they are",
        "optimistic by an amount that this card does not know.",
        "",
        "### Cell classes",
        "",
        f"{neighbours['own_patient_share']:.1%} of a cell's nearest neighbours in the SimCLR embedding come from its "
        f"own patient, {neighbours['own_patient_share_by_chance']:.1%} would by chance: the classes partly follow",
        "the patient (and so possibly the stain), not the cell's shape alone.",
        "",
    ]
    return "\n".join(lines)


def claims(figures: Figures, manifest: Manifest) -> dict[str, bool]:
    """Every demand on a reference bundle, and whether it holds."""
    beaten = figures["clinical GaussianNB"]["auc"]
    held = {
        f"{name}: AUC above chance, {figures[name]['auc']:.3f} "
        f"[{figures[name]['auc_low']:.3f}, {figures[name]['auc_high']:.3f}]": figures[name]["auc_low"] > 0.5
        for name in PICTURES_ONLY
    }
    gate = figures["moe gate"]
    spread = gate["quantile_95"] - gate["quantile_05"]
    return held | {
        f"the gate is not constant: 90% of patients lie within a range of {spread:.3f}": spread > 0.05,
        "no member has weight 0": min(manifest.ensemble.weights.values()) > 0.01,
        f"the ensemble's AUC {figures['ensemble']['auc']:.3f} is above clinical GaussianNB's {beaten:.3f} "
        f"on the same folds": figures["ensemble"]["auc"] > beaten,
        f"the ensemble's AUC {figures['ensemble']['auc']:.3f} is above .938, clinical GaussianNB's in five repeats": (
            figures["ensemble"]["auc"] > 0.938
        ),
    }


def _table(figures: Figures) -> list[str]:
    rows = ["| out of fold | balanced accuracy | AUC [95%] | grey-zone AUC [95%] |", "|---|---|---|---|"]
    for name, values in figures.items():
        if "auc" in values:
            rows.append(
                f"| {name} | {values['balanced_accuracy']:.3f} "
                f"| {values['auc']:.3f} [{values['auc_low']:.3f}, {values['auc_high']:.3f}] "
                f"| {values['grey_zone_auc']:.3f} "
                f"[{values['grey_zone_auc_low']:.3f}, {values['grey_zone_auc_high']:.3f}] |"
            )
    return rows


def _grey_patients(figures: Figures) -> int:
    return int(figures["ensemble"]["grey_zone_patients"])


def _gate(figures: Figures) -> str:
    return " / ".join(f"{value:.3f}" for value in figures["moe gate"].values())
