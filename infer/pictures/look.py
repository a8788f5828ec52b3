"""A picture as read by the job: a digest of its content, and its crop or why it has none."""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infer.pictures.compression import jpeg_quality
from infer.pictures.decode import RejectedImage, decode_crop, try_picture
from infer.pictures.measure import JPEG_QUALITY, has_cell, measured
from infer.reasons import Reason

Crop = npt.NDArray[np.uint8]  # (112, 112, 3)


@dataclass(frozen=True)
class DecodedPicture:
    """The result of reading and decoding a picture."""

    content: str  # SHA-256 of its bytes; the reason if they cannot be read
    crop: Crop | RejectedImage | OSError
    measures: Mapping[str, float] = field(default_factory=dict)  # of the crop, by name (infer.pictures.measure)
    pixels: tuple[int, ...] = ()  # width and height of the whole picture, after rescaling


def look(path: Path, root: Path, size: int, scale: float = 1.0, checked: bool = True) -> DecodedPicture:
    """Read and decode a picture; never raises.

    Args:
        root: the cohort's resolved folder; a link that leads out of it is not followed.
        size: of the central crop, in pixels.
        scale: by which the picture is rescaled before it is cropped.
        checked: look for damage and for a cell, and measure the crop. Without, the crop alone, for a caller who knows
            the content's digest from an earlier, checked look.
    """
    try:
        content, data = try_picture(path, root)
        if not isinstance(data, bytes):
            return DecodedPicture(content, data)
        crop, pixels = decode_crop(data, size, scale, checked)
        if not checked:
            return DecodedPicture(content, crop, pixels=pixels)
        found = measured(crop)
        if not has_cell(found):
            return DecodedPicture(content, RejectedImage(Reason.NO_CELL.text()))
        quality = jpeg_quality(data)
        return DecodedPicture(content, crop, found if quality is None else found | {JPEG_QUALITY: quality}, pixels)
    except RejectedImage as error:
        return DecodedPicture(content, error)
    except MemoryError:  # not caused by the picture: its patient fails, the others continue
        return DecodedPicture("", OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
