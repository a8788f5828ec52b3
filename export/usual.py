"""When a patient is unlike the training patients: the numbers behind `infer.scoring.unusual`.

A training patient is judged by all the others, so its score is what a new patient of this hospital would have. What the
features' distance says of it comes from a fit without it, too (`export.members.distance`).
"""

from collections.abc import Mapping

import numpy as np

from infer.bundle.reference import Span, Usual
from infer.cohort.plausible import Range
from infer.pictures.measure import JPEG_QUALITY
from infer.scoring.unusual import deviation
from train.core.arrays import Booleans, Floats

LIMIT = 0.03  # of patients like the training patients, about this share is held up
ENDS = (0.01, 0.5, 0.99)
NEVER = 1e6  # as a distance of an end from the middle: what lies on this side is never unusual
# The measures of pictures that are judged, and the least distance of the low and of the high end from the middle that
# counts: what hardly varies in one hospital must not make every other one unusual.
TINY = 1e-6
DIGITS = 1e-5  # of the middle: what is less is lost when the numbers are rounded
JUDGED: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("red", "green", "blue", "slide_red", "slide_green", "slide_blue"), (1.0, 1.0)),
    **dict.fromkeys(("sharpness", "cell_area", "nucleus_area", "nucleus_density", "density_spread"), (TINY, TINY)),
    **dict.fromkeys(("features_within", "features_outside"), (NEVER, TINY)),  # nearer than others is not unlike them
    JPEG_QUALITY: (10.0, NEVER),  # nor is a picture that was compressed less
}
YEARS, TIMES = 5.0, 1.25  # how far beyond all training patients age and count may lie


def make_usual(measures: Mapping[str, Floats], limit: float = LIMIT) -> Usual:
    """What is usual among patients whose measures (P,) are given by name; `lymph_count` and `age_years` among them."""
    patients = len(measures["age_years"])
    scores = scores_by_others(measures)
    age, count = measures["age_years"], measures["lymph_count"]
    return Usual(
        # The smallest p is 1 / (1 + patients): with 32 patients or fewer, that is no smaller than .03.
        limit=limit if limit * (1 + patients) > 1 else 1.5 / (1 + patients),
        spans={name: _span(name, of) for name, of in _judged(measures).items()},
        ranges={
            "age_years": Range(rounded(age.min() - YEARS), rounded(age.max() + YEARS)),
            "lymph_count": Range(rounded(count.min() / TIMES), rounded(count.max() * TIMES)),
        },
        scores=sorted(map(rounded, scores)),
    )


def scores_by_others(measures: Mapping[str, Floats]) -> list[float]:
    """Each patient's largest deviation from all the others', in their order."""
    judged, patients = _judged(measures), len(measures["age_years"])
    scores = []
    for patient in range(patients):
        others = np.arange(patients) != patient
        by = (deviation(float(of[patient]), _span(name, of[others])) for name, of in judged.items())
        scores.append(max(map(abs, by)))
    return scores


def held_up_by_others(measures: Mapping[str, Floats], limit: float) -> Booleans:
    """Whose pictures are unusual among all the others': (P,)."""
    scores = np.array(scores_by_others(measures))
    at_least = (scores[None, :] >= scores[:, None]).sum(axis=1)  # the patient's own among them
    return np.asarray(at_least / len(scores) < limit)


def _judged(measures: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: measures[name] for name in JUDGED if name in measures}


def _span(name: str, values: Floats) -> Span:
    low, middle, high = np.quantile(values, ENDS).tolist()
    least_low, least_high = (max(least, DIGITS * abs(middle)) for least in JUDGED[name])
    return Span(*map(rounded, (min(low, middle - least_low), middle, max(high, middle + least_high))))


def rounded(value: float) -> float:
    """To six significant digits, as all numbers of the section."""
    return float(f"{value:.6g}")
