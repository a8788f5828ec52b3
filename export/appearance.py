"""The manifest's description of the classes of cells, from the training pictures of each class."""

import pandas as pd

from infer.bundle.appearance import (
    FEWEST_PATIENTS,
    FEWEST_PICTURES,
    LARGEST_SHARE,
    QUARTILES,
    Appearance,
    ClassAppearance,
)
from infer.members.scan import share_of
from train.core.arrays import Classes, Indices


def make_appearance(cells: pd.DataFrame, classes: Classes, patients: Indices) -> Appearance | None:
    """What the classes look like; None if hardly a picture has a cell that can be measured.

    Args:
        cells: (N) rows, what was measured on each training picture (train.data.appearance).
        classes: (N,) of each picture.
        patients: (N,) whose each picture is.
    """
    table = cells.assign(cell_class=classes, patient=patients).dropna()
    if len(table) < FEWEST_PICTURES:
        return None
    described = {}
    for number, of_class in table.groupby("cell_class"):
        each = of_class["patient"].value_counts()
        if (
            len(each) >= FEWEST_PATIENTS
            and len(of_class) >= FEWEST_PICTURES
            and each.iloc[0] < LARGEST_SHARE * len(of_class)
        ):
            medians = {str(name): _short(of_class[name].median()) for name in cells}
            described[share_of(int(str(number)))] = ClassAppearance(len(each), len(of_class), medians)
    quartiles = {str(name): [_short(value) for value in table[name].quantile(list(QUARTILES))] for name in cells}
    return Appearance(quartiles, described)


def _short(value: float) -> float:
    """Four digits: the median of an odd number of pictures is one picture's own value."""
    return float(f"{float(value):.4g}")
