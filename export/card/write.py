"""Writes MODEL_CARD.md: what the bundle is, how it was made, its performance and its limits.

The headings are those of model cards (Mitchell et al. 2019). Below each heading the card lists the items of TRIPOD+AI
(2024), STARD (2015) and CLAIM (2024) covered there; items this program cannot know are named. Every sentence is true of
any bundle, or computed from the run folder, or provided by the person who exports.
"""

import hashlib
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from export.card.appearance import cell_classes
from export.card.earlier import nested_of
from export.card.few import few_patients
from export.card.figures import Figures, above_grey_zone, member_table, nested, operating_points, out_of_fold
from export.members.member import MemberCard
from infer.bundle.manifest import Manifest, Reduced
from infer.members import registry
from infer.members.member import Precision
from train.core.metrics import about_grey_zone
from train.ensemble.fit import FOLDER as ENSEMBLE
from train.evaluation.nested.evaluate import FOLDER
from train.members.absent import read_notes

WIDTH = 120  # characters per line
ANSWERS = {  # heading -> names of the items in TRIPOD+AI, STARD and CLAIM covered there
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
    """Text for the card from the members and the parity check."""

    parity: float  # largest difference in a probability between graphs and networks
    members: list[MemberCard]
    noted: list[str]  # changes made by export, other than rounding errors
    nested_is_current: Callable[[Mapping[str, Any]], bool]  # whether nested results with these facts still hold


def write_card(
    run: Path,
    manifest: Manifest,
    manifest_bytes: bytes,
    words: CardWords,
    about: str,
    earlier: Path | None = None,
) -> str:
    """The model card as Markdown.

    Args:
        run: the run folder.
        manifest: manifest of the bundle.
        manifest_bytes: the manifest as written to the bundle, whose SHA-256 is the bundle ID.
        words: text from the members and the parity check.
        about: text about the data, added by the exporter.
        earlier: a bundle of the same training, from whose card nested results are taken if the run has none.

    Raises:
        UsageError: the earlier bundle is of another training.
    """
    figures: Figures = json.loads((run / ENSEMBLE / "metrics.json").read_text())
    of_nested = _figures_in(run / FOLDER)
    if of_nested and not words.nested_is_current(of_nested["facts"]):
        of_nested = None
    section = nested_of(earlier, manifest) if earlier and not of_nested else nested(of_nested)
    bundle_id = hashlib.sha256(manifest_bytes).hexdigest()
    notes = read_notes(run / ENSEMBLE)
    contents = {
        "Model details": _details(figures, manifest, words, notes),
        "Intended use": _use(manifest),
        "Factors": [*_factors(words), *cell_classes(manifest)],
        "Metrics": _metrics(figures, manifest, of_nested is not None or earlier is not None),
        "Evaluation data": _evaluation_data(words),
        "Training data": _training_data(manifest, _rejected(run), about, words),
        "Quantitative analyses": [
            *section,
            *out_of_fold(figures, manifest, _pictures_only(words)),
            *operating_points(figures, manifest),
        ],
        "Ethical considerations": _ethics(),
        "Caveats and recommendations": [*few_patients(manifest), *_caveats(manifest, words)],
    }
    source = manifest.provenance
    parts = [
        "# Model card",
        f"Bundle `{bundle_id}`,\nmade {source.created} by lympho {source.code_version} (Apache-2.0).",
    ]
    for heading, paragraphs in contents.items():
        parts += [f"## {heading}", *_answers(heading), *paragraphs]
    parts += ["## The recipe", "\n".join(f"- `{name}` = {value}" for name, value in source.options.items())]
    return "\n\n".join(wrapped(part) for part in parts) + "\n"


def _figures_in(folder: Path) -> dict[str, Any] | None:
    """The results of the nested protocol in this folder, if any."""
    path = folder / "figures.json"
    return json.loads(path.read_text()) if path.exists() else None


def wrapped(part: str) -> str:
    """Wrap prose; leave lists, tables, headings and text with line breaks unchanged."""
    return part if "\n" in part or part[0] in "#-|" else textwrap.fill(part, WIDTH, break_on_hyphens=False)


def _answers(heading: str) -> list[str]:
    if heading not in ANSWERS:
        return []
    tripod, stard, claim = ANSWERS[heading]
    return [f"*TRIPOD+AI: {tripod}. STARD: {stard}. CLAIM: {claim}.*"]


def _details(figures: Figures, manifest: Manifest, words: CardWords, notes: Sequence[str]) -> list[str]:
    source = manifest.provenance
    *others, last = (member.described for member in words.members)
    members = f"{'; '.join(others)}; and {last}" if others else last
    number = NUMBERS.get(len(words.members), str(len(words.members)))
    return [
        "\n".join(
            [
                f"- {number.capitalize()} members: {members}. The result is the weighted mean of their calibrated "
                "probabilities.",
                *(f"- {sentence}" for sentence in notes),
                *(f"- {sentence}" for member in words.members for sentence in member.details),
                f"- `python -m train all`, recipe `{source.recipe}`, seed {source.seed}; then `python -m export`.",
                "- Each member is trained on all patients. Networks use a fixed schedule and averaged weights, without "
                "early stopping or selection of an epoch; hyperparameters chosen by cross-validation are chosen inside "
                "the training patients.",
                f"- Graphs: ONNX opset {manifest.opset}; on 64 training pictures, probabilities in float32 differ from "
                f"torch by {words.parity:.1e} at most. {' '.join(words.noted)}".rstrip(),
                *_precision(manifest),
                "- Output: the probability of malignant, a decision (`malignant`, `reactive`, `refer`), each member's "
                "probability, and how much the members disagree.",
            ]
        ),
        *member_table(figures, manifest),
    ]


def _precision(manifest: Manifest) -> list[str]:
    """Where networks compute in lower precision than float32, and the measured effect."""
    lines = []
    if manifest.int8:
        lines.append(
            f"- On a CPU the networks of {_in(manifest, 'int8')} that see pictures compute in int8; as a "
            "fallback after a GPU failure, and if the self-test fails, in float32. "
            f"{_proof(manifest.int8)} For patients unlike the training patients (column `unusual`) the difference may "
            "be larger."
        )
    return [*lines, "- All results below are for float32."] if lines else ["- All graphs compute in float32."]


def _in(manifest: Manifest, precision: Precision) -> str:
    """The members with graphs in a precision."""
    kinds = [kind for kind in registry.MEMBERS if kind.name in manifest.members and kind.stand_ins.get(precision)]
    return ", ".join(kind.name for kind in kinds)


def _pictures_only(words: CardWords) -> str:
    return "; ".join(f"{member.name}: {member.pictures_only}" for member in words.members)


def _proof(reduced: Reduced) -> str:
    return (
        f"Of {reduced.patients} patients scored both ways, {reduced.changed_decisions} got a different decision at any "
        f"operating point; no probability changed by more than {reduced.largest_change:.4f}."
    )


def _use(manifest: Manifest) -> list[str]:
    plausible = manifest.plausible
    return [
        "It estimates the probability that a patient's lymphocytosis is malignant rather than reactive, from pictures "
        f"of at least {plausible.minimum_images} single lymphocytes, sex, age and lymphocyte count. It is meant to "
        "help a haematologist decide who is referred to flow cytometry.",
        "**It is not a medical device.** It has not been tested in a clinical study. It must not decide about a "
        "patient alone.",
        "Out of scope: patients without lymphocytosis (a normal count is not refused); ages outside "
        f"{plausible.age_years.low:g} to {plausible.age_years.high:g} years and counts outside "
        f"{plausible.lymph_count.low:g} to {plausible.lymph_count.high:g} x 10^9/L (refused); another analyser, stain "
        "or magnification than in the training data; distinguishing diseases; and any use in which nobody examines the "
        "smears of patients called reactive.",
    ]


def _factors(words: CardWords) -> list[str]:
    return [
        "Predictors: the central 112 x 112 pixels of each picture, sex, age in years, lymphocyte count in 10^9/L. "
        "Stain, lamp and analyser affect the networks through the pictures. No other patient data is used.",
        *(paragraph for member in words.members for paragraph in member.factors),
    ]


def _metrics(figures: Figures, manifest: Manifest, has_nested: bool) -> list[str]:
    nested_only = (
        " The nested evaluation adds average precision, predictive values, Brier score, calibration slope and "
        "intercept, and subgroups by sex, age, count and number of pictures."
    )
    return [
        "Balanced accuracy (mean of sensitivity and specificity), AUC, share referred; malignant is the positive "
        "class. 95% intervals by bootstrap over patients, 2,000 resamples. The grey zone is reported separately. "
        + about_grey_zone(*above_grey_zone(figures, manifest))
        + (nested_only if has_nested else ""),
        "Operating points: between two thresholds the decision is `refer`. `balanced`: the narrowest band around the "
        "threshold with the best balanced accuracy outside which balanced accuracy is at least .95, or else the widest "
        "band that refers at most a quarter of the patients. `sensitivity-N`: nobody at or above the threshold with a "
        "sensitivity of N% is called reactive, because missing a malignant patient costs more than an unnecessary flow "
        "cytometry.",
    ]


def _training_data(manifest: Manifest, rejected: int, about: str, words: CardWords) -> list[str]:
    source, data = manifest.provenance, manifest.provenance.data_summary
    return [
        f"{data['patients']} patients ({data['malignant']} malignant, {data['reactive']} reactive) with "
        f"{data['images']} pictures; ages at {source.reference_date}. The table's SHA-256 is `{source.table_sha256}`. "
        f"Left out: patients with LABEL -1 and {rejected} pictures that could not be used. No missing value was "
        f"imputed." + "".join(f" {sentence}" for member in words.members for sentence in member.training),
        "This program does not know who was recruited, when and how, by which reference standard they were labelled, "
        "nor ethical approval and funding. Added by the exporter:",
        about.strip() or "Nothing.",
    ]


def _rejected(run: Path) -> int:
    return len(pd.read_csv(run / "crops" / "rejected.csv"))


def _evaluation_data(words: CardWords) -> list[str]:
    return [
        "The same patients, each held out in turn; none from another hospital."
        + "".join(f" {sentence}" for member in words.members for sentence in member.evaluation)
    ]


def _ethics() -> list[str]:
    return [
        "A malignant patient called reactive may be diagnosed late; a reactive patient called malignant is examined "
        "unnecessarily and may be alarmed.",
        "The bundle contains no picture, ID or record of a patient. But it contains the smallest and largest age and "
        "count of the training patients; with the reference date of the ages these can reveal two birth dates. Logs "
        "contain IDs but no values.",
    ]


def _caveats(manifest: Manifest, words: CardWords) -> list[str]:
    usual = manifest.reference.usual
    patients = len(usual.scores)  # the one at place k is one of patients - k with a score as large
    held_up = sum((patients - place) / patients < usual.limit for place in range(patients))
    weak = manifest.provenance.weak
    return [
        *([f"**Exported although it is weak.** {weak}."] if weak else []),
        "**Do not score patients without lymphocytosis.** A normal or low count is not refused.",
        f"A patient unlike the training patients (`ood_p` below {usual.limit:g}) is decided `refer`, unless the run "
        f"says otherwise (`--ood`). Of the training patients, each judged by the others, {held_up} of "
        f"{patients} are held up by their pictures. Pictures of another hospital may all be.",
        *(paragraph for member in words.members for paragraph in member.caveats),
        "Read the intervals before the estimates, above all for subgroups. Before use, score your own patients with a "
        "known diagnosis, and compare. Look more closely where members disagree, where the decision is `refer`, and "
        "where the column `unusual` is not empty.",
    ]
