"""A picture as read by the job: a digest of its content, and its crop or why it has none."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infer.pictures.cell import has_cell
from infer.pictures.decode import RejectedImage, decode_crop, try_picture
from infer.reasons import Reason

Crop = npt.NDArray[np.uint8]  # (112, 112, 3)


@dataclass(frozen=True)
class DecodedPicture:
    """The result of reading and decoding a picture."""

    content: str  # SHA-256 of its bytes; the reason if they cannot be read
    crop: Crop | RejectedImage | OSError
    colour: tuple[float, ...] = ()  # mean red, green and blue of the crop
    pixels: tuple[int, ...] = ()  # width and height of the whole picture, after rescaling


def look(path: Path, root: Path, size: int, scale: float = 1.0, checked: bool = True) -> DecodedPicture:
    """Read and decode a picture; never raises.

    Args:
        root: the cohort's resolved folder; a link that leads out of it is not followed.
        size: of the central crop, in pixels.
        scale: by which the picture is rescaled before it is cropped.
        checked: look for damage and for a cell, and measure the colour. Without, the crop alone, for a caller who knows
            the content's digest from an earlier, checked look.
    """
    try:
        content, data = try_picture(path, root)
        if not isinstance(data, bytes):
            return DecodedPicture(content, data)
        crop, pixels = decode_crop(data, size, scale, checked)
        if not checked:
            return DecodedPicture(content, crop, pixels=pixels)
        if not has_cell(crop):
            return DecodedPicture(content, RejectedImage(Reason.NO_CELL.text()))
        return DecodedPicture(content, crop, mean_colour(crop), pixels)
    except RejectedImage as error:
        return DecodedPicture(content, error)
    except MemoryError:  # not caused by the picture: its patient fails, the others continue
        return DecodedPicture("", OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))


def mean_colour(crop: Crop) -> tuple[float, ...]:
    """Mean red, green and blue, from integer sums: (3,)."""
    height, width, channels = crop.shape
    columns = crop.reshape(height, width * channels).sum(
        axis=0, dtype=np.uint32
    )  # much faster than summing over both axes
    return tuple((columns.reshape(width, channels).sum(axis=0) / (height * width)).tolist())
