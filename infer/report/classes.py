"""The patient's mix of cell classes beside that of reactive and of malignant training patients, and how they look."""

from dataclasses import dataclass

from infer.bundle.reference import LABELS, Reference, Spread
from infer.report.appearance import Look, look
from infer.report.charts import share
from infer.report.texts import Texts
from infer.scoring.result import PatientResult

SHARE = "share_"  # and the class's number: the measure's name


@dataclass(frozen=True)
class Span:
    """The middle of the patients of one label, on the scale."""

    left: str
    width: str
    median: str
    words: str


@dataclass(frozen=True)
class ClassRow:
    """A class."""

    number: str
    patient: str  # share in words
    place: str  # the same on the scale
    reactive: Span
    malignant: Span
    look: Look | None  # None: the bundle does not say


def class_rows(result: PatientResult, reference: Reference, texts: Texts) -> tuple[tuple[ClassRow, ...], str]:
    """The rows of the classes, and the share at the right end of their scale; none if no member has classes."""
    labels = [reference.by_label[label] for label in LABELS]
    numbers = sorted(
        int(name.removeprefix(SHARE)) for name in labels[0] if name.startswith(SHARE) and name in labels[1]
    )
    mine = {number: result.measures.get(f"{SHARE}{number}") for number in numbers}
    if not numbers or None in mine.values():
        return (), ""
    spreads = {number: [of_label[f"{SHARE}{number}"] for of_label in labels] for number in numbers}
    shares = [mine[number] or 0.0 for number in numbers]
    most = max([*shares, *(spread.high for pair in spreads.values() for spread in pair)]) or 1.0
    rows = []
    for number, here in zip(numbers, shares, strict=True):
        reactive, malignant = (_span(spread, most, texts) for spread in spreads[number])
        looks = look(reference.appearance, f"{SHARE}{number}", number, texts) if reference.appearance else None
        rows.append(ClassRow(str(number), texts.percent(here), share(here / most), reactive, malignant, looks))
    return tuple(rows), texts.percent(most)


def _span(spread: Spread, most: float, texts: Texts) -> Span:
    words = texts("classes.span", low=texts.percent(spread.low), high=texts.percent(spread.high))
    width = (spread.high - spread.low) / most
    return Span(share(spread.low / most), share(width), share(spread.median / most), words)
