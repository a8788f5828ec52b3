"""Rows of predictions.csv and images.csv: columns, numbers as text, and no cell that a spreadsheet would compute."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence

from infer.bundle.manifest import MEMBERS
from infer.output.journal import Entry
from infer.scoring.patient import ImageResult, PatientResult

REPORT_MEMBERS, FURTHER_MEMBERS = MEMBERS[:3], MEMBERS[3:]  # those that came later have their columns at the end
PREDICTION_COLUMNS = (
    "patient_id",
    "status",
    "reason",
    "probability_malignant",
    "decision",
    "age_years",
    "images",
    "images_rejected",
    *(f"{member}_probability" for member in REPORT_MEMBERS),
    "moe_image_gate",
    "disagreement",
    "bundle",
    *(f"{member}_probability" for member in FURTHER_MEMBERS),
)
IMAGE_COLUMNS = (
    "patient_id",
    "image",
    "status",
    "reason",
    "baseline_probability",
    "cell_class",
    "cell_class_confidence",
    "imagenet_contribution",
)


def entry_of(result: PatientResult, short_id: str) -> Entry:
    """A finished patient as the journal and the counts take it."""
    rejected = [image for image in result.images if image.reason]
    return Entry(
        patient_id=result.patient_id,
        fingerprint=result.fingerprint,
        status=result.status,
        code=_code(result.reason),
        decision=result.scores.decision if result.scores else "",
        used=len(result.images) - len(rejected),
        rejected=len(rejected),
        image_reasons=dict(Counter(_code(image.reason) for image in rejected)),
        ignored_files=result.ignored_files,
        unusual_colour=result.unusual_colour,
        unusual_sizes=dict(result.unusual_sizes),
        pictures_below=list(result.pictures_below),
        contents=list(result.contents),
        prediction=csv_text([prediction_row(result, short_id)]),
        images=csv_text(image_row(result, image) for image in result.images),
    )


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV text."""
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        # Python 3.11 leaves a lone \r without quotes, where every reader takes it for the end of the row.
        (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
    return text.getvalue()


def prediction_row(result: PatientResult, short_id: str) -> list[str]:
    """A row of predictions.csv; refused and failed patients have no number and no decision."""
    head = [_guarded(result.patient_id), result.status, result.reason]
    scores = result.scores
    if scores is None:
        row = dict.fromkeys(PREDICTION_COLUMNS, "") | {"bundle": short_id}
        return [*head, *list(row.values())[len(head) :]]
    return [
        *head,
        _decimal(scores.probability),
        scores.decision,
        f"{result.age_years:.2f}",
        str(len(result.images)),
        str(result.rejected),
        *(_decimal(scores.members[member]) for member in REPORT_MEMBERS),
        _decimal(scores.gate),
        _decimal(scores.disagreement),
        short_id,
        *(_decimal(scores.members[member]) for member in FURTHER_MEMBERS),
    ]


def image_row(result: PatientResult, image: ImageResult) -> list[str]:
    """A row of images.csv; pictures that did not enter a patient's probability have no number."""
    head = [_guarded(result.patient_id), _guarded(image.image), "rejected" if image.reason else "used", image.reason]
    baseline, confidence, contribution = image.baseline_probability, image.cell_class_confidence, image.contribution
    if result.scores is None or baseline is None or confidence is None or contribution is None:
        return [*head, "", "", "", ""]
    return [*head, _decimal(baseline), str(image.cell_class), _decimal(confidence), _decimal(contribution)]


def _decimal(value: float) -> str:
    return f"{value:.6f}"


def _guarded(cell: str) -> str:
    """A cell that a spreadsheet would take for a formula gets a leading apostrophe."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _code(reason: str) -> str:
    return reason.partition(":")[0]
