"""The manifest's section on the training patients: what is usual. No patient's own row is in it."""

import msgspec

Quantiles = list[float]
SHARES = tuple(round(0.01 + 0.02 * index, 2) for index in range(50))  # 1 %, 3 %, ..., 99 %
LABELS = ("reactive", "malignant")


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a measure is in most patients of one label."""

    low: float  # 10 % of the patients lie below
    median: float
    high: float  # 10 % lie above


class ClinicalAlone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Logistic regression on sex, age and count alone, fitted on all training patients."""

    weights: list[float]  # (4,) of sex (F = 1), age in decades, log count, and log count above the bend
    intercept: float
    bend: float  # log of the count at which the slope changes


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is usual: the training patients' measures, each for itself."""

    patients: int
    measures: dict[str, Quantiles]  # name -> the values that SHARES of the patients lie below
    by_label: dict[str, dict[str, Spread]]  # label -> name -> spread; not of measures that say nothing of the disease
    clinical: ClinicalAlone
