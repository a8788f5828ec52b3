"""The manifest's section on the training patients: what is usual. No patient's own row is in it."""

import math
from collections.abc import Collection, Iterator
from typing import Annotated

import msgspec

from infer.bundle.appearance import Appearance
from infer.bundle.appearance import problems as problems_of_appearance
from infer.cohort.plausible import Range
from infer.pictures.measure import JPEG_QUALITY

Quantiles = list[float]
LEVELS = tuple(round(0.01 + 0.02 * index, 2) for index in range(50))  # 1 %, 3 %, ..., 99 %
LABELS = ("reactive", "malignant")
OF_PATIENTS = ("age_years", "lymph_count")


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a measure is in most patients of one label."""

    low: float  # 10 % of the patients lie below
    median: float
    high: float  # 10 % lie above


class ClinicalAlone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Logistic regression on sex, age and count alone, fitted on all training patients: weights of the log odds."""

    female: float
    log_count: float  # of the natural logarithm of the count in 10^9/L
    age_years: float
    intercept: float

    def probability(self, female: float, count: float, age_years: float) -> float:
        """What they say of a patient."""
        odds = self.female * female + self.log_count * math.log(count) + self.age_years * age_years + self.intercept
        return 1 / (1 + math.exp(-min(max(odds, -700.0), 700.0)))


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a measure is in nearly all training patients."""

    low: float  # 1 % of the patients lie below
    middle: float  # the median
    high: float  # 1 % lie above


class Usual(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a patient is unlike the training patients (infer.scoring.unusual)."""

    limit: Annotated[float, msgspec.Meta(gt=0, lt=1)]  # a patient with a smaller p is
    spans: dict[str, Span]  # of the measures of pictures that are judged
    ranges: dict[str, Range]  # of the measures of patients that are judged: all training patients', and a margin
    scores: list[float]  # of the training patients, ascending, each judged by the others


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is usual: the training patients' measures, each for itself."""

    patients: int
    measures: dict[str, Quantiles]  # name -> the values that LEVELS of the patients lie below
    by_label: dict[str, dict[str, Spread]]  # label -> name -> spread; of what members measure
    clinical: ClinicalAlone
    usual: Usual
    seen: str = ""  # salted digests of the training pictures (train.data.seen), to know them again; "": not told
    appearance: Appearance | None = None  # of the classes of cells; None: not told, or no member has classes


def problems(reference: Reference, measured: Collection[str]) -> Iterator[str]:
    """What is wrong with a section that types cannot express.

    Args:
        measured: what scoring measures on pictures.
    """
    if reference.patients < 2:
        yield "reference.patients must be 2 or more"
    for name, values in reference.measures.items():
        if len(values) != len(LEVELS) or sorted(values) != values:
            yield f"reference.measures.{name} must be {len(LEVELS)} ascending quantiles"
    if "probability" not in reference.measures:
        yield "reference.measures lacks probability"
    if reference.by_label.keys() != set(LABELS):
        yield f"reference.by_label must describe {' and '.join(LABELS)}"
    if reference.appearance:
        of_labels = reference.by_label.values()
        yield from problems_of_appearance(
            reference.appearance, [name for name in measured if all(name in of_label for of_label in of_labels)]
        )
    usual = reference.usual
    if not usual.spans or any(not span.low < span.middle < span.high for span in usual.spans.values()):
        yield "reference.usual.spans must be of one measure or more, each with low < middle < high"
    if unknown := sorted(usual.spans.keys() - set(measured)):
        yield f"reference.usual.spans has {', '.join(unknown)}, which nothing measures"
    if usual.spans.keys() == {JPEG_QUALITY}:
        yield "reference.usual.spans must judge more than JPEG files"
    if usual.ranges.keys() != set(OF_PATIENTS) or any(not span.low < span.high for span in usual.ranges.values()):
        yield f"reference.usual.ranges must be of {' and '.join(OF_PATIENTS)}, each with low < high"
    if len(usual.scores) != reference.patients or sorted(usual.scores) != usual.scores or usual.scores[0] < 0:
        yield "reference.usual.scores must be one number a training patient, ascending from 0"
    elif usual.limit * (1 + reference.patients) <= 1:
        yield "reference.usual.limit is so small that no patient can be unusual"
