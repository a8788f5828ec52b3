"""The measures that are compared, in the order and with the names in which people read them, and a run's values.

A measure is one number per patient whose pictures the networks have seen. The bundle has, for each, quantiles of its
training patients' values.
"""

import math
from array import array
from collections.abc import Iterable, Mapping

Sums = dict[str, tuple[float, int]]  # measure -> sum of its patients' normal scores, their number

CELL_CLASSES = 15
DECISIONS = ("malignant", "reactive", "refer")

# The order of drift.json. In a sentence, a title is followed by "higher", "lower", "more varied" or "less varied".
TITLES: dict[str, str] = {
    "red": "red",
    "green": "green",
    "blue": "blue",
    "slide_red": "red of the bare slide",
    "slide_green": "green of the bare slide",
    "slide_blue": "blue of the bare slide",
    "sharpness": "sharpness",
    "cell_area": "size of the cells",
    "nucleus_area": "size of the nuclei",
    "nucleus_density": "darkness of the nuclei",
    "density_spread": "contrast",
    "jpeg_quality": "JPEG quality",
    "features_within": "features, distance along the usual directions",
    "features_outside": "features, distance across the usual directions",
    **{f"share_{number}": f"share of cell class {number}" for number in range(CELL_CLASSES)},
    "probability": "probability of malignancy",
    **{f"decision_{decision}": f"share of the decision {decision}" for decision in DECISIONS},
    "lymph_count": "lymphocyte count",
    "age_years": "age",
    "sex": "share of women",
    "pictures": "number of pictures",
}


class Values:
    """The measures of a run's patients: eight bytes a number, and nothing that says whose it is."""

    def __init__(self) -> None:
        self.patients = 0
        self._values: dict[str, array[float]] = {}

    def add(self, measures: Mapping[str, float], probability: float | None, decision: str | None) -> None:
        """Add a patient.

        Args:
            measures: by key, without probability and decision. Where a key is missing or its value is not finite, the
                patient does not count for that measure.
            probability: the ensemble's, 0 to 1; None for a patient who was measured and got none.
            decision: malignant, reactive or refer; counted as three measures that are 0 or 1. None: as above.

        Raises:
            ValueError: another decision.
        """
        if decision is not None and decision not in DECISIONS:
            raise ValueError(f"{decision}: is not one of {', '.join(DECISIONS)}")
        self.patients += 1
        said = {} if probability is None else {"probability": probability}
        if decision is not None:
            said |= {f"decision_{one}": float(one == decision) for one in DECISIONS}
        for key, value in (said | dict(measures)).items():
            if math.isfinite(value):
                self._values.setdefault(key, array("d")).append(value)

    def of(self, key: str) -> Iterable[float]:
        """The values of a measure, in the order in which patients were added; empty if there are none."""
        return self._values.get(key, array("d"))


def in_order(reference: Iterable[str]) -> list[str]:
    """The keys of a bundle's measures in the order of TITLES; those that it does not know come last, by name."""
    places = {key: place for place, key in enumerate(TITLES)}
    return sorted(reference, key=lambda key: (places.get(key, len(places)), key))


def title(key: str) -> str:
    """What people call a measure; a bundle's further measures are called by their keys."""
    return TITLES.get(key, key)
