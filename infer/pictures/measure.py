"""What is measured on a crop before any network sees it: colour, sharpness, and the size and density of the cell.

Densities are optical (natural logarithm), of green light, relative to the bare slide: nuclei are dark in every stain.
All but sharpness are taken from means of square blocks, where granules and noise do not matter.
"""

import functools

import numpy as np
import numpy.typing as npt

from infer.pictures.kmeans import kmeans

Floats = npt.NDArray[np.float64]

BLOCKS = 28  # a side
MIDDLE, EDGE, NEAR = 1 / 7, 13 / 28, 1 / 2  # radii as shares of the side: the middle, where the edge begins, the cell
BARE = 0.98  # share of the blocks that are darker than the bare slide
DENSEST = 3.0  # optical density that counts as 1 for k-means: 5% of the light; in the pictures at hand 2.9 at most
JPEG_QUALITY = "jpeg_quality"  # the file's, of JPEGs only
MEASURES = (
    "red", "green", "blue", "slide_red", "slide_green", "slide_blue", "sharpness", "cell_area", "nucleus_area",
    "nucleus_density", "density_spread", "centre_density",
)  # fmt: skip
# Density in the middle minus at the edge. A nucleus has 0.7 to 1.8 in 98% of real pictures (24 of each of 130
# patients); a red cell, a blank picture or noise has less than 0.3. Of the 1,816 pictures of 24 real patients 9 do not
# have it (tests/container): the analyser cut beside the cell. Training keeps these, as the report's protocol needs.
CENTRE, CONTRAST = "centre_density", 0.3


def measured(crop: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Measures of a crop (size, size, 3) RGB, by name.

    - red, green, blue: means, 0 to 255.
    - slide_red, slide_green, slide_blue: the bare slide's, 0 to 255: lamp, camera, white balance, compression.
    - sharpness: squares of second over squares of first differences between neighbouring pixels, green, without unit.
    - cell_area, nucleus_area: shares of the crop's inscribed disc, by k-means of the square root of density.
    - nucleus_density, density_spread: mean density of the nucleus, standard deviation over the crop: the stain.
    - centre_density: density in the middle minus the median at the edge.
    """
    blocks = _blocks(crop)  # (n, n, 3)
    slide = _bare(blocks)
    density = -np.log(np.minimum((blocks[..., 1] + 1) / (slide[1] + 1), 1))  # + 1: black has a density too
    middle, edge, near = _rings(len(blocks))
    cluster, _ = kmeans(np.sqrt(np.minimum(density / DENSEST, 1)), 3)
    nucleus = cluster == 2
    return {
        **_named("", blocks.mean(axis=(0, 1))),
        **_named("slide_", slide),
        "sharpness": _sharpness(crop[..., 1]),
        "cell_area": float((cluster[near] > 0).mean()),
        "nucleus_area": float(nucleus[near].mean()),
        "nucleus_density": float(density[nucleus].mean()) if nucleus.any() else 0.0,
        "density_spread": float(density.std()),
        CENTRE: float(density[middle].mean() - np.median(density[edge])),
    }


def has_cell(measures: dict[str, float]) -> bool:
    """Whether the middle of the crop is darker than its edge, as it is if there is a nucleus."""
    return measures[CENTRE] >= CONTRAST


def _named(prefix: str, colour: Floats) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in zip(("red", "green", "blue"), colour.tolist(), strict=True)}


def _bare(blocks: Floats) -> Floats:
    """The colour of the bare slide, (3,): nearly the brightest block in each channel."""
    channels = blocks.reshape(-1, 3)
    place = min(int(BARE * len(channels)), len(channels) - 1)
    return np.asarray(np.partition(channels, place, axis=0)[place])


def _sharpness(green: npt.NDArray[np.uint8]) -> float:
    """0 for a crop without differences. In integers, so that it is the same on every machine."""
    values = green.astype(np.int16)
    first, second = 0, 0
    for of in (values, np.ascontiguousarray(values.T)):
        once = of[1:] - of[:-1]
        first += _squares(once)
        second += _squares(once[1:] - once[:-1])
    return second / first if first else 0.0


def _squares(values: npt.NDArray[np.int16]) -> int:
    """Their sum; values are from -1020 to 1020."""
    return int(np.square(values, dtype=np.int32).sum(dtype=np.int64))


@functools.cache
def _rings(number: int) -> tuple[npt.NDArray[np.bool_], ...]:
    """Which blocks lie in the middle, at the edge, and near enough to be the cell's, each (number, number)."""
    across = np.arange(number) - (number - 1) / 2
    distance = np.hypot(across[:, None], across) / number
    return distance <= MIDDLE, distance >= EDGE, distance <= NEAR


def _blocks(crop: npt.NDArray[np.uint8]) -> Floats:
    """Means of square blocks: (size, size, 3) -> about (BLOCKS, BLOCKS, 3); what is left at the end is cut off."""
    side = max(len(crop) // BLOCKS, 1)
    number = len(crop) // side
    kept = crop[: number * side, : number * side].reshape(number, side, number * side * 3)
    rows = np.zeros((number, number * side * 3), np.uint32)
    for index in range(side):  # several times as fast as a sum over two axes
        rows += kept[:, index]
    columns = rows.reshape(number, number, side, 3)
    return np.asarray(sum(columns[:, :, index] for index in range(side)) / side**2)
