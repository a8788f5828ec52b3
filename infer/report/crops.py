"""The pictures of a page: read and decoded once more, by the run's own processes, and checked to be the same bytes."""

import base64
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import simplejpeg

from infer.pictures.look import Crop, DecodedPicture

QUALITY = 85  # of the JPEG in the page
GONE, CHANGED = "gone", "changed"
Looked = Future[list[DecodedPicture]]


@dataclass(frozen=True)
class Shown:
    """A picture, or why there is none."""

    uri: str = ""  # data URI of a JPEG of the crop
    missing: str = ""  # GONE or CHANGED


def show(looked: DecodedPicture, content: str) -> Shown:
    """A picture as it can be put into a page.

    Args:
        content: the first digits of the SHA-256 that the scored picture had.
    """
    crop = looked.crop
    if isinstance(crop, np.ndarray) and looked.content.startswith(content):
        return Shown(data_uri(crop))
    digest = len(looked.content) == 64 and not set(looked.content) - set("0123456789abcdef")
    return Shown(missing=CHANGED if digest and not looked.content.startswith(content) else GONE)


def data_uri(crop: Crop) -> str:
    """A crop, (112, 112, 3), as the data URI of a JPEG."""
    jpeg = simplejpeg.encode_jpeg(crop, quality=QUALITY, colorspace="RGB", colorsubsampling="420")
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
