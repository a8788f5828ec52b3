"""Optional: keeps a crop's lymphocyte and removes its surroundings (section 3.1 and figure 4 of the report).

The report clusters the saturation channel by k-means. On the raw picture this loses pale cytoplasm, which is less
saturated than the smear's cream background. So saturation is measured relative to the background colour. Red cells,
which are as saturated as pale cytoplasm, are recognised by the blue light that haemoglobin absorbs.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from infer.pictures.kmeans import kmeans
from train.core.arrays import Floats, Pixels

Mask = npt.NDArray[np.bool_]

SMOOTHING = (1, 2, 1)  # binomial; integer sums are exact, so a rotated picture gives exactly the rotated mask
WIPED = 255  # white: as bright as a smear's background, but the same for everyone, so no patient's stain remains


@dataclass(frozen=True)
class Segmentation:
    """Parameters, chosen by eye on the public cohort's 112 x 112 crops; the report states none."""

    clusters: int = 3  # saturation clusters: background, cytoplasm and red cells, nucleus
    background_percentile: float = 98.0  # of each channel over the crop: the bare slide is the brightest part
    least_contrast: float = 0.45  # nucleus minus background, of sqrt(saturation); cells have .47 to .76; below: no cell
    red_cell_blue: float = 0.48  # absorbed blue / absorbed green: lymphocytes .3 to .45, red cells .5 to .65
    opening: int = 4  # px, radius: cuts off platelets and slivers of red cells
    closing: int = 3  # px, radius: closes pale gaps between the nucleus and the cell's edge
    least_area: int = 400  # px: smaller components are platelets; the smallest lymphocytes have 1,200


REPORT = Segmentation()


@dataclass(frozen=True)
class Cell:
    """The central lymphocyte of a crop."""

    whole: Mask  # (H, W) nucleus and cytoplasm
    nucleus: Mask  # (H, W)
    light: Floats  # (H, W, 3) share of the light that passes at each pixel, smoothed; 1: bare slide


def segment(crop: Pixels, options: Segmentation = REPORT) -> Mask:
    """Mask (H, W) bool of the central lymphocyte, nucleus and cytoplasm, in a crop (H, W, 3) uint8.

    If no cell is found, for example in a constant picture, the mask covers the whole crop.
    """
    cell = find_cell(crop, options)
    return cell.whole if cell else np.ones(crop.shape[:2], np.bool_)


def find_cell(crop: Pixels, options: Segmentation = REPORT) -> Cell | None:
    """The central lymphocyte in a crop (H, W, 3) uint8; None if no cell is found, as in a constant picture."""
    light = _transmitted(crop, options)  # (H, W, 3)
    saturation = 1 - light.min(axis=2) / light.max(axis=2)  # (H, W)
    # Square root, because pale cytoplasm is close to the background and far from the nucleus: without it the nucleus
    # would dominate where the cluster border lies.
    cluster, centres = kmeans(np.sqrt(saturation), options.clusters)
    if centres[-1] - centres[0] < options.least_contrast:
        return None
    nucleus = cluster == options.clusters - 1
    red_cell = (1 - light[..., 2]) > options.red_cell_blue * (1 - light[..., 1])
    cell = nucleus | ((cluster > 0) & ~red_cell)
    cell = _padded(ndimage.binary_opening, cell, options.opening)
    cell = _padded(ndimage.binary_closing, cell, options.closing)
    cell = ndimage.binary_fill_holes(cell)
    cell = _without_small_parts(cell, options.least_area)
    if not cell.any():
        return None
    whole = _nearest_to_centre(cell)
    return Cell(whole, _one_nucleus(nucleus & whole, options), light)


def _one_nucleus(dark: Mask, options: Segmentation) -> Mask:
    """The nucleus without granules and the dark rim that many cells have; all that is dark if nothing else is."""
    opened = _padded(ndimage.binary_opening, dark, options.opening)
    return np.asarray(ndimage.binary_fill_holes(_nearest_to_centre(opened))) if opened.any() else dark


def keep_cell(crop: Pixels, options: Segmentation = REPORT) -> Pixels:
    """A copy of a crop (H, W, 3) uint8, white outside its lymphocyte."""
    return np.where(segment(crop, options)[..., None], crop, np.uint8(WIPED))


def before_and_after(crop: Pixels, options: Segmentation = REPORT) -> Pixels:
    """A crop (H, W, 3) uint8 and, to its right, the segmented crop, as in figure 4: (H, 2 W, 3) uint8."""
    return np.concatenate([crop, keep_cell(crop, options)], axis=1)


def _transmitted(crop: Pixels, options: Segmentation) -> Floats:
    """Fraction of light transmitted at each pixel, smoothed, 1 for the background: (H, W, 3) within (0, 1]."""
    total = crop.astype(np.int64)
    for axis in (0, 1):
        total = ndimage.correlate1d(total, SMOOTHING, axis=axis, mode="nearest")
    bare = np.percentile(total, options.background_percentile, axis=(0, 1))  # (3,)
    return np.clip((total + 1) / (bare + 1), 0, 1)  # + 1, a sixteenth of a grey level, avoids division by zero


@functools.cache
def _disc(radius: int) -> Mask:
    across = np.arange(-radius, radius + 1)
    return np.hypot(across[:, None], across) <= radius + 0.5


def _padded(morphology: Callable[..., Mask], mask: Mask, radius: int) -> Mask:
    """A morphological operation with edge padding, so that a cell cut by the picture's edge is not eroded there."""
    padded = np.pad(mask, 2 * radius, mode="edge")
    inside = slice(2 * radius, -2 * radius)
    return morphology(padded, _disc(radius))[inside, inside]


def _without_small_parts(mask: Mask, least_area: int) -> Mask:
    parts, _ = ndimage.label(mask)
    large: Mask = np.bincount(parts.ravel())[parts] >= least_area
    return mask & large


def _nearest_to_centre(mask: Mask) -> Mask:
    """The connected component with the pixel nearest to the picture's centre. The mask must not be empty."""
    parts, _ = ndimage.label(mask)
    y, x = np.nonzero(mask)
    distance = np.square(2 * y - mask.shape[0] + 1) + np.square(2 * x - mask.shape[1] + 1)
    nearest = np.argmin(distance)
    kept: Mask = parts == parts[y[nearest], x[nearest]]
    return kept
