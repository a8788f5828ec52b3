"""What the cells of each class look like: medians over the training pictures. No patient's own value is in it.

Classes are found without labels and nobody has named them. What can be said of them is what is measured: export fills
this in (export.appearance), pages and card put it into words (infer.report.appearance).
"""

from collections.abc import Collection, Iterator
from typing import Annotated

import msgspec

SIZE, NUCLEUS, DENSITY, UNEVENNESS, ROUNDNESS = MEASURED = (
    "cell_size",  # share of the crop that the cell takes
    "nucleus_share",  # share of the cell that its nucleus takes
    "chromatin_density",  # optical density of the nucleus for green light, natural logarithm, mean
    "chromatin_unevenness",  # the same, standard deviation within the nucleus
    "roundness",  # of the outline; 1: a disc
)
QUARTILES = (0.25, 0.5, 0.75)
# A class that is rarer, or half of which is one patient, is not described: its medians would be nearly that patient's
# own. And of fewer pictures a median means little: of 30 drawn from all, it lies among the highest quarter in 3 of
# 1,000 draws (binomial, 15 or more of 30 at 1/4); of 5, in 1 of 10.
FEWEST_PATIENTS, FEWEST_PICTURES, LARGEST_SHARE = 5, 30, 0.5

Measure = Annotated[float, msgspec.Meta(ge=0.0, le=10.0)]


class ClassAppearance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A class of cells in the training pictures."""

    patients: Annotated[int, msgspec.Meta(ge=FEWEST_PATIENTS)]  # who have it
    pictures: Annotated[int, msgspec.Meta(ge=FEWEST_PICTURES)]
    medians: dict[str, Measure]  # of MEASURED over these pictures


class Appearance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All training pictures, and each class that can be described."""

    quartiles: dict[str, list[Measure]]  # of MEASURED over all training pictures, QUARTILES
    classes: dict[str, ClassAppearance]  # the measure of the class's share -> the class; too rare ones are missing


def problems(appearance: Appearance, shares: Collection[str]) -> Iterator[str]:
    """What is wrong with a section that types cannot express.

    Args:
        shares: measures that are shares of classes.
    """
    where = "reference.appearance"
    if appearance.quartiles.keys() != set(MEASURED):
        yield f"{where}.quartiles must be of {', '.join(MEASURED)}"
    if any(len(values) != len(QUARTILES) or sorted(values) != values for values in appearance.quartiles.values()):
        yield f"{where}.quartiles must be {len(QUARTILES)} ascending numbers each"
    if unknown := sorted(appearance.classes.keys() - set(shares)):
        yield f"{where}.classes has {', '.join(unknown)}, whose share nothing measures"
    for name, one in appearance.classes.items():
        if one.medians.keys() != set(MEASURED):
            yield f"{where}.classes.{name}.medians must be of {', '.join(MEASURED)}"
        if one.patients > one.pictures:
            yield f"{where}.classes.{name} has more patients than pictures"
