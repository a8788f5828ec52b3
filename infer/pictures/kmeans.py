"""One-dimensional k-means (Lloyd 1982), as the report clusters saturation: for sizes of cells, and for segmentation."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

LEVELS = 256  # to which values are rounded
ROUNDS = 100  # maximum iterations; crops converge within about 20


def kmeans(values: Floats, clusters: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """k-means of values in 0 to 1, rounded to 256 levels, computed on their histogram.

    Deterministic: the initial centres are evenly spaced between the lowest and the highest value. Quantiles would not
    work: if three quarters of a crop are background, all of them start inside the background.

    Returns:
        The cluster of each value, in the shape of the values, and the centres in ascending order, (clusters,).
    """
    level = np.rint(values * (LEVELS - 1)).astype(np.intp)
    count = np.bincount(level.ravel(), minlength=LEVELS).astype(np.float64)
    position = np.linspace(0, 1, LEVELS)
    centres = np.linspace(position[level.min()], position[level.max()], clusters)
    for _ in range(ROUNDS):
        owner = np.searchsorted((centres[1:] + centres[:-1]) / 2, position)  # (LEVELS,)
        weight = np.bincount(owner, count, clusters)
        moved = np.bincount(owner, count * position, clusters) / np.maximum(weight, 1)
        moved = np.where(weight > 0, moved, centres)  # the centre of an empty cluster does not move
        if np.array_equal(moved, centres):
            break
        centres = moved
    return owner[level], centres
