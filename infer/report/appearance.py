"""What the cells of a class look like, in words and as a drawing: both from the medians that the bundle has.

A word is said only where the class's median lies outside the middle half of all training pictures: then more than half
of the class's pictures are where only a quarter of all pictures are.
"""

import math
from dataclasses import dataclass

from infer.bundle.appearance import DENSITY, MEASURED, NUCLEUS, SIZE, Appearance, ClassAppearance
from infer.report.texts import Texts

LARGEST = 20.0  # radius of the largest cell that is drawn; a drawing is 41 wide
PALEST, DARKEST = 0.4, 1.0  # opacity of a nucleus
BEYOND = 0.75  # interquartile ranges beyond the quartiles where the darkness of the drawings ends


@dataclass(frozen=True)
class Drawing:
    """A cell with its nucleus, as two discs."""

    cell: str  # radius
    nucleus: str  # radius
    opacity: str  # of the nucleus
    words: str  # the same in numbers


@dataclass(frozen=True)
class Look:
    """What stands beside a class."""

    words: str
    drawing: Drawing | None  # None: the class is too rare to be described


def look(appearance: Appearance, share: str, number: int, texts: Texts) -> Look:
    """Of one class.

    Args:
        share: the measure of the class's share.
        number: the class's.
    """
    words = in_words(appearance, share, texts)
    one = appearance.classes.get(share)
    if one is None:
        return Look(words, None)
    numbers = {"patients": texts.number(one.patients), "pictures": texts.number(one.pictures)}
    said = texts("appearance.drawing", number=number, words=words, **_numbers(one.medians, texts), **numbers)
    return Look(words, _drawing(appearance, one.medians, said))


def all_pictures(appearance: Appearance, texts: Texts) -> Drawing:
    """The median of all training pictures, to compare the others with."""
    medians = {name: values[1] for name, values in appearance.quartiles.items()}
    return _drawing(appearance, medians, texts("appearance.drawing_of_all", **_numbers(medians, texts)))


def in_words(appearance: Appearance, share: str, texts: Texts) -> str:
    """What is unusual about a class's cells, that nothing is, or that the class is too rare."""
    one = appearance.classes.get(share)
    if one is None:
        return texts("appearance.rare")
    said = [texts(f"appearance.{name}_{end}") for name, end in _ends(appearance, one)]
    return ", ".join(said) or texts("appearance.like_most")


def _ends(appearance: Appearance, one: ClassAppearance) -> list[tuple[str, str]]:
    """The measures whose median lies outside the middle half of all pictures, and at which end."""
    found = []
    for name in MEASURED:
        low, _, high = appearance.quartiles[name]
        if one.medians[name] < low:
            found.append((name, "low"))
        elif one.medians[name] > high:
            found.append((name, "high"))
    return found


def _numbers(medians: dict[str, float], texts: Texts) -> dict[str, str]:
    return {
        "size": texts.percent(medians[SIZE]),
        "nucleus": texts.percent(medians[NUCLEUS]),
        "density": texts.number(medians[DENSITY], 2),
    }


def _drawing(appearance: Appearance, medians: dict[str, float], words: str) -> Drawing:
    """All drawings have one scale, in which areas are as the medians; densities are spread over what is usual."""
    largest = max([appearance.quartiles[SIZE][1], *(one.medians[SIZE] for one in appearance.classes.values())])
    cell = LARGEST * math.sqrt(medians[SIZE] / largest) if largest else 0.0
    low, _, high = appearance.quartiles[DENSITY]
    middle, reach = (low + high) / 2, (0.5 + BEYOND) * (high - low)
    place = 0.5 + 0.5 * (medians[DENSITY] - middle) / reach if reach else 0.5
    opacity = PALEST + (DARKEST - PALEST) * min(max(place, 0.0), 1.0)
    return Drawing(f"{cell:.1f}", f"{cell * math.sqrt(medians[NUCLEUS]):.1f}", f"{opacity:.2f}", words)
