"""Finds damage that decoders do not notice: the file still decodes, but to a wrong picture.

Disks and network shares lose whole blocks and leave zero bytes in their place; copies are truncated; transfers drop
bytes. PNG, BMP and TIFF files are checked here, JPEG files in `infer.pictures.jpeg`. No pixel is changed.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL.TiffImagePlugin import ImageFileDirectory_v2

Pixels = npt.NDArray[np.uint8]  # (height, width, 3), or 1 or 4 channels

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks without influence on the pixels. They are removed because Pillow refuses long texts or colour profiles.
PNG_NOTES = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"})

BLOCK = 512  # bytes: the smallest unit that disks lose
PAGE = 4096  # bytes: the unit in which a file system extends a file
ZEROS = re.compile(rb"\0+")
MOST_RUNS = 10  # runs of zeros of at least a block: a picture with more is really black
MOST_LINES = 15  # LF bytes that may all follow a CR by chance

COMPRESSION, FILL_ORDER, STRIPS, STRIP_SIZES, TILES, TILE_SIZES = 259, 266, 273, 279, 324, 325  # TIFF tags
DEFLATE = frozenset({8, 32946})
NEVER_ZEROS = frozenset({5, 32773})  # LZW, PackBits: black pixels give few codes, and never two zero codes in a row
UNPACKED_AT_ONCE, MOST_UNPACKED = 2**20, 2**27  # bytes: a picture of 25 million pixels has less than 2**27
# How to undo Pillow's rotation for a tag: number of quarter turns anticlockwise, and whether mirrored.
TURNED: dict[object, tuple[int, bool]] = {
    2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (1, False), 7: (3, True), 8: (3, False)
}  # fmt: skip


class DamagedError(Exception):
    """Part of the picture is missing or wrong; the message says how this was detected."""


def checked_png(data: bytes) -> bytes:
    """Check a PNG's checksums and remove its texts, colour profile and camera data.

    Pillow does not verify the checksums of the pixel data.

    Raises:
        DamagedError: a checksum is wrong, or the file is truncated.
    """
    kept = [PNG_SIGNATURE]
    at, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", data[at : at + 8].ljust(8, b"\0"))
        chunk = data[at : at + 12 + length]
        if len(chunk) < 12 + length:
            raise DamagedError("its data are truncated")
        if kind not in PNG_NOTES:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise DamagedError(f"the checksum of its {kind.decode('latin-1')!a} is wrong")
            kept.append(chunk)
        at += len(chunk)
    return b"".join(kept)


def check_for_lost_blocks(data: bytes) -> None:
    """For formats without checksums (BMP, TIFF): look for blocks of zeros, and for the traces of a text-mode transfer.

    Raises:
        DamagedError: any of these is found, or a TIFF's own checksums are wrong.
    """
    runs = list(zero_runs(data, BLOCK))
    pages = [(start, end) for start, end in runs if start % PAGE == 0 and end % PAGE == 0]
    blocks = [(start, end) for start, end in runs if start % BLOCK == 0 and end % BLOCK == 0]
    tails = [(start, end) for start, end in runs if start % PAGE == 0 and end == len(data)]
    # A black background has runs in almost every row: some begin and end at block boundaries by chance.
    for start, end in pages if len(runs) > MOST_RUNS else blocks + tails:
        raise DamagedError(f"{end - start} zero bytes in a row in its data, as if a disk block was lost")
    lines = data.count(b"\n")
    if lines and lines == data.count(b"\r\n"):
        longer = data.startswith(b"BM") and len(data) == int.from_bytes(data[2:6], "little") + lines
        if longer or lines > MOST_LINES:
            raise DamagedError("it was transferred in text mode, which changed its line ends")
    if data.startswith((b"II", b"MM")):
        _check_strips(data)


def _check_strips(data: bytes) -> None:
    """Check a TIFF's compressed pixels: libtiff ignores zlib's checksums and accepts zeros as codes."""
    tags = ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8])  # BigTIFFs have version 43
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    compression = tags.get(COMPRESSION, 1)
    if compression not in DEFLATE | NEVER_ZEROS or tags.get(FILL_ORDER, 1) != 1:
        return
    room = MOST_UNPACKED
    for offset, size in zip(
        tags.get(STRIPS, tags.get(TILES, ())), tags.get(STRIP_SIZES, tags.get(TILE_SIZES, ())), strict=False
    ):
        if compression in NEVER_ZEROS:
            for start, end in zero_runs(data, BLOCK, offset, min(offset + size, len(data))):
                raise DamagedError(f"{end - start} zero bytes in a row in its data, as if a disk block was lost")
            continue
        unpacking, packed = zlib.decompressobj(), data[offset : offset + size]
        while size and room > 0 and not unpacking.eof:
            try:
                part = unpacking.decompress(packed, UNPACKED_AT_ONCE)
            except zlib.error as error:
                raise DamagedError("its data are inconsistent") from error
            packed = unpacking.unconsumed_tail
            room -= len(part)
            if not (part or packed or unpacking.eof):
                raise DamagedError("its data are truncated")


def zero_runs(data: bytes, fewest: int, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Runs of at least `fewest` zero bytes between `start` and `end`: first byte, and one past the last."""
    end = len(data) if end is None else end
    wanted = bytes(fewest)
    while (start := data.find(wanted, start, end)) >= 0:
        match = ZEROS.match(data, start, end)
        behind = match.end() if match else start
        yield start, behind
        start = behind


def turned_back(pixels: Pixels, orientation: object) -> Pixels:
    """The pixels in stored orientation, of a picture that Pillow rotated because of its tag 274."""
    turns, mirrored = TURNED.get(orientation, (0, False))
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
