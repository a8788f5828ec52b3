"""Optional: keeps a crop's lymphocyte and wipes out what surrounds it (section 3.1 and figure 4 of the report).

The report clusters the saturation channel by k-means. Taken from the picture as it is, that loses pale cytoplasm: the
smear's cream background is more saturated than it. So saturation is measured against the background's colour, and red
cells, which are as saturated as pale cytoplasm, are told from it by the blue that haemoglobin absorbs.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

LEVELS = 256  # of saturation, as in 8-bit HSV
SMOOTHING = (1, 2, 1)  # binomial; sums of integers are exact, so a turned picture gives the turned mask to the pixel
WIPED = 255  # white: as bright as a smear's background, but the same for all, so that no patient's stain remains in it
ROUNDS = 100  # of k-means at most; crops settle within about 20


@dataclass(frozen=True)
class Segmentation:
    """The numbers below were chosen by eye on the public cohort's crops of 112 x 112; the report states none."""

    clusters: int = 3  # of saturation: background, cytoplasm and red cells, nucleus
    background_percentile: float = 98.0  # of each channel over the crop: the bare slide is what is brightest
    least_contrast: float = 0.45  # nucleus less background, roots of saturation; seen .47 to .76; below it no cell
    red_cell_blue: float = 0.48  # absorbed share of blue over that of green: lymphocytes .3 to .45, red cells .5 to .65
    opening: int = 4  # px, radius: cuts off platelets and slivers of red cells
    closing: int = 3  # px, radius: bridges pale spots between nucleus and the cell's edge
    least_area: int = 400  # px: smaller parts are platelets; the smallest lymphocytes have 1,200


REPORT = Segmentation()


def segment(crop: Pixels, options: Segmentation = REPORT) -> Mask:
    """The lymphocyte in the middle, nucleus and cytoplasm: (H, W) bool, of a crop (H, W, 3) uint8.

    A picture in which no cell can be found, a constant one above all, is left as it is: the mask is everything.
    """
    everything = np.ones(crop.shape[:2], np.bool_)
    light = _transmitted(crop, options)  # (H, W, 3)
    saturation = 1 - light.min(axis=2) / light.max(axis=2)  # (H, W)
    # Its square root: pale cytoplasm stands near the background and far from the nucleus, which else draws the border.
    cluster, centres = kmeans(np.sqrt(saturation), options.clusters)
    if centres[-1] - centres[0] < options.least_contrast:
        return everything
    nucleus = cluster == options.clusters - 1
    red_cell = (1 - light[..., 2]) > options.red_cell_blue * (1 - light[..., 1])
    cell = nucleus | ((cluster > 0) & ~red_cell)
    cell = _padded(ndimage.binary_opening, cell, options.opening)
    cell = _padded(ndimage.binary_closing, cell, options.closing)
    cell = ndimage.binary_fill_holes(cell)
    cell = _without_small_parts(cell, options.least_area)
    return _nearest_to_centre(cell) if cell.any() else everything


def keep_cell(crop: Pixels, options: Segmentation = REPORT) -> Pixels:
    """A copy of a crop (H, W, 3) uint8, white outside its lymphocyte."""
    return np.where(segment(crop, options)[..., None], crop, np.uint8(WIPED))


def before_and_after(crop: Pixels, options: Segmentation = REPORT) -> Pixels:
    """A crop (H, W, 3) uint8 and, to its right, what segmentation keeps of it, as in figure 4: (H, 2 W, 3) uint8."""
    return np.concatenate([crop, keep_cell(crop, options)], axis=1)


def kmeans(values: Floats, clusters: int) -> tuple[npt.NDArray[np.intp], Floats]:
    """One-dimensional k-means (Lloyd 1982) of values within 0 to 1, rounded to 256 levels, by their histogram.

    Deterministic: the first centres stand evenly between the lowest and the highest value. Quantiles would not do:
    where three quarters of a crop are background, they all begin inside it.

    Returns:
        each value's cluster, of the values' shape, and the centres, ascending, (clusters,).
    """
    level = np.rint(values * (LEVELS - 1)).astype(np.intp)
    count = np.bincount(level.ravel(), minlength=LEVELS).astype(np.float64)
    position = np.linspace(0, 1, LEVELS)
    centres = np.linspace(position[level.min()], position[level.max()], clusters)
    for _ in range(ROUNDS):
        owner = np.searchsorted((centres[1:] + centres[:-1]) / 2, position)  # (LEVELS,)
        weight = np.bincount(owner, count, clusters)
        moved = np.bincount(owner, count * position, clusters) / np.maximum(weight, 1)
        moved = np.where(weight > 0, moved, centres)  # an empty cluster stays where it is
        if np.array_equal(moved, centres):
            break
        centres = moved
    return owner[level], centres


def _transmitted(crop: Pixels, options: Segmentation) -> Floats:
    """The share of light that each pixel lets through, smoothed, background 1: (H, W, 3) within (0, 1]."""
    total = crop.astype(np.int64)
    for axis in (0, 1):
        total = ndimage.correlate1d(total, SMOOTHING, axis=axis, mode="nearest")
    bare = np.percentile(total, options.background_percentile, axis=(0, 1))  # (3,)
    return np.clip((total + 1) / (bare + 1), 0, 1)  # 1 is a sixteenth of a grey level, against division by zero


@functools.cache
def _disc(radius: int) -> Mask:
    across = np.arange(-radius, radius + 1)
    return np.hypot(across[:, None], across) <= radius + 0.5


def _padded(morphology: Callable[..., Mask], mask: Mask, radius: int) -> Mask:
    """A morphological operation as if the picture went on beyond its edge: a cell cut by it is not eaten from there."""
    padded = np.pad(mask, 2 * radius, mode="edge")
    inside = slice(2 * radius, -2 * radius)
    return morphology(padded, _disc(radius))[inside, inside]


def _without_small_parts(mask: Mask, least_area: int) -> Mask:
    parts, _ = ndimage.label(mask)
    large: Mask = np.bincount(parts.ravel())[parts] >= least_area
    return mask & large


def _nearest_to_centre(mask: Mask) -> Mask:
    """The connected part with the pixel nearest to the middle of the picture; of a non-empty mask."""
    parts, _ = ndimage.label(mask)
    y, x = np.nonzero(mask)
    distance = np.square(2 * y - mask.shape[0] + 1) + np.square(2 * x - mask.shape[1] + 1)
    nearest = np.argmin(distance)
    kept: Mask = parts == parts[y[nearest], x[nearest]]
    return kept
