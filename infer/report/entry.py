"""What the index keeps of a patient: little, because it keeps it of all."""

from dataclasses import dataclass

from infer.reasons import code_of
from infer.report.page import PatientPage
from infer.scoring.result import PatientResult


@dataclass(frozen=True, slots=True)
class Entry:
    """A patient of the index."""

    page: str  # file
    patient: str
    decision: str  # reactive, refer, malignant, refused, failed
    code: str  # of the reason
    probability: float | None
    disagreement: float
    used: int
    flagged: bool


def entry_of(page: str, result: PatientResult, view: PatientPage) -> Entry:
    """What the index keeps of a patient."""
    scores = result.scores
    probability, disagreement = (scores.probability, scores.disagreement) if scores else (None, 0.0)
    code = code_of(result.reason)
    return Entry(
        page, view.patient, view.decision, code, probability, disagreement, result.used, bool(view.quality.flags)
    )
