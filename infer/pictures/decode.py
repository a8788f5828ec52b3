"""Reads a picture and turns it into the networks' input: the central crop as uint8 RGB.

Training and scoring use the same functions. A picture that cannot be used is rejected with a reason, never repaired.
"""

import errno
import hashlib
import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from infer.pictures.damage import PNG_SIGNATURE, DamagedError, check_for_lost_blocks, checked_png, turned_back
from infer.pictures.jpeg import strict_jpeg
from infer.pictures.rescale import rescaled_crop, rescaled_size
from infer.reasons import Reason

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")  # by content, regardless of the suffix
MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 25 * 10**6  # a 224 x 224 picture has 50,176; a decompression bomb has 4 * 10^8
# Errors on opening that concern this file only; any other concerns the disk or the network.
THIS_FILE_ALONE = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa"})
OTHER_COLOURS = frozenset({"LAB", "HSV"})
TIFF_BITS_PER_SAMPLE, ORIENTATION = 258, 274
JPEG_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
WITHOUT_CHECKSUMS = ("BMP", "DIB", "TIFF")

# Pillow only warns about pictures between one and two times its own limit; a nightly job must not decode them.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class RejectedImage(Exception):
    """A picture that cannot be used; the message is "code: sentence"."""


def leaves(path: Path, root: Path) -> bool:
    """Whether a path leads outside `root` once links are followed; `root` must be resolved."""
    return not Path(os.path.realpath(path)).is_relative_to(root)


def read_picture(path: Path, root: Path) -> bytes:
    """A picture file's bytes.

    Args:
        root: the cohort's resolved folder; a link that leads out of it is not followed.

    Raises:
        RejectedImage: it cannot be used, with the reason.
        OSError: the disk or the network failed; the picture may be good.
    """
    if leaves(path, root):
        raise RejectedImage(Reason.OUTSIDE.text())
    return _read(path)


def try_picture(path: Path, root: Path) -> tuple[str, bytes | RejectedImage | OSError]:
    """A digest of a picture, and its bytes or why they cannot be read; never raises.

    The digest is the SHA-256 of the bytes, or the reason if they cannot be read.
    """
    try:
        data = read_picture(path, root)
    except (RejectedImage, OSError) as error:
        return str(error), error
    except MemoryError:  # not caused by the picture: its patient fails, the others continue
        too_large = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return str(too_large), too_large
    return hashlib.sha256(data).hexdigest(), data


def decode_crop(
    data: bytes, size: int, scale: float = 1.0, checked: bool = True
) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """The central `size` x `size` pixels of a picture, (size, size, 3) uint8 RGB, and its width and height in pixels.

    Args:
        scale: the factor by which the picture is rescaled first; crop, width and height are in the pixels after it.
        checked: False: a JPEG is not looked through for damage that decoders do not notice. The pixels are the same.

    Raises:
        RejectedImage: it cannot be used, with the reason.
    """
    try:
        pixels = _decode(data, size, scale, checked)
        height, width = pixels.shape[:2]
        crop = centre_crop(pixels, size) if scale == 1 else rescaled_crop(pixels, size, scale)
        return crop, rescaled_size(width, height, scale)
    except (RejectedImage, MemoryError):
        raise
    except DamagedError as error:
        raise RejectedImage(Reason.DAMAGED.text(error=error)) from error
    except UnidentifiedImageError as error:
        raise RejectedImage(Reason.NOT_AN_IMAGE.text()) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedImage(Reason.TOO_MANY_PIXELS.text()) from error
    except Exception as error:  # on broken bytes, Pillow's decoders may raise any exception
        raise RejectedImage(Reason.UNDECODABLE.text()) from error


def centre_crop(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """The central `size` x `size` of (height, width, 3); an odd margin has its extra row or column at the end."""
    height, width = pixels.shape[:2]
    top, left = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(pixels[top : top + size, left : left + size])


def _read(path: Path) -> bytes:
    """The file's bytes. Opened non-blocking, so that a pipe named x.jpg cannot block the nightly run."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in THIS_FILE_ALONE:
            raise
        raise RejectedImage(Reason.UNREADABLE.text(error=error.strerror)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RejectedImage(Reason.NOT_A_FILE.text())
        if status.st_size == 0:
            raise RejectedImage(Reason.EMPTY.text())
        if status.st_size > MAX_FILE_BYTES:
            raise RejectedImage(Reason.TOO_LARGE.text())
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES)
    finally:
        os.close(descriptor)


def _decode(data: bytes, size: int, scale: float, checked: bool) -> npt.NDArray[np.uint8]:
    """All pixels in stored orientation, not yet rescaled: (height, width, 3) RGB."""
    if data.startswith(PNG_SIGNATURE):
        data = checked_png(data)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        width_after, height_after = rescaled_size(width, height, scale)
        if width_after < size or height_after < size:
            rescaled = "" if scale == 1 else f", rescaled to {width_after} x {height_after}"
            raise RejectedImage(Reason.TOO_SMALL.text(width=width, height=height, rescaled=rescaled, size=size))
        if width * height > MAX_PIXELS:
            raise RejectedImage(Reason.TOO_MANY_PIXELS.text())
        if getattr(image, "n_frames", 1) > 1:
            raise RejectedImage(Reason.SEVERAL_FRAMES.text())
        if image.mode in OTHER_COLOURS:
            raise RejectedImage(Reason.OTHER_COLOURS.text(mode=image.mode))
        if image.mode not in EIGHT_BIT_MODES or _bits(image, data) > 8:
            raise RejectedImage(Reason.NOT_8_BIT.text())
        if image.format == "JPEG":
            return _decode_jpeg(image, data, checked)
        if image.format in WITHOUT_CHECKSUMS:
            check_for_lost_blocks(data)
        orientation = image.getexif().get(ORIENTATION) if image.format == "TIFF" else None  # Pillow rotates only TIFFs
        return turned_back(np.asarray(_to_rgb(image)), orientation)


def _decode_jpeg(image: Image.Image, data: bytes, checked: bool) -> npt.NDArray[np.uint8]:
    pixels = strict_jpeg(data, JPEG_COLOURS[image.mode], checked)
    if pixels is None or image.mode == "CMYK":
        return np.asarray(image.convert("RGB"))
    return pixels if image.mode == "RGB" else np.repeat(pixels, 3, axis=-1)


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits per channel as stated in the file: Pillow silently opens 16-bit colour PNGs as 8-bit RGB."""
    if image.format == "PNG":
        return data[24]  # the ninth byte of the content of IHDR
    if image.format == "TIFF":
        tags: dict[int, tuple[int, ...]] = getattr(image, "tag_v2", {})
        return max(tags.get(TIFF_BITS_PER_SAMPLE, (8,)))
    return 8


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        opaque = image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
        if not opaque:
            raise RejectedImage(Reason.TRANSPARENT.text())
    return image.convert("RGB")
