"""Rescales a picture of another camera, so that its pixels cover what those of the training pictures do."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

SUPPORT = 3  # pixels of the coarser of the two grids: half the width of the bicubic kernel


def rescaled_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """Width and height in pixels of a picture that is rescaled by a factor."""
    return round(width * scale), round(height * scale)


def rescaled_crop(pixels: npt.NDArray[np.uint8], size: int, scale: float) -> npt.NDArray[np.uint8]:
    """The central `size` x `size` pixels of a picture that is rescaled by a factor; only these are computed.

    Each pixel is interpolated where it lies, so the crop's centre is the picture's, even between two pixels.

    Args:
        pixels: (height, width, 3) RGB. Rescaled, no side is shorter than `size` by more than half a pixel; such a side
            is stretched to `size`.

    Returns:
        (size, size, 3) RGB.
    """
    (top, bottom, first_row, last_row), (left, right, first_column, last_column) = (
        _span(length, size, scale) for length in pixels.shape[:2]
    )
    region = np.ascontiguousarray(pixels[first_row:last_row, first_column:last_column])
    box = (left - first_column, top - first_row, right - first_column, bottom - first_row)
    return np.array(Image.fromarray(region).resize((size, size), Image.Resampling.LANCZOS, box))


def _span(length: int, size: int, scale: float) -> tuple[float, float, int, int]:
    """What becomes the crop along one side of the picture: its start and end, and those of the pixels that it needs."""
    half = min(size / scale, length) / 2
    margin = math.ceil(SUPPORT * max(1.0, 1 / scale)) + 1
    start, end = length / 2 - half, length / 2 + half
    return start, end, max(0, math.floor(start) - margin), min(length, math.ceil(end) + margin)
