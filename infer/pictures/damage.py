"""Finds damage that decoders pass over: the file still decodes, into another picture.

Disks and network shares lose data in blocks and leave zero bytes in their place; copying breaks off; transfers drop
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
# Of any size, and no matter for the pixels: Pillow refuses a picture whose text or colour profile is long.
PNG_NOTES = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"})

BLOCK = 512  # bytes: the smallest that disks lose
PAGE = 4096  # bytes: in which a file system makes a file longer
ZEROS = re.compile(rb"\0+")
MOST_RUNS = 10  # of zeros as long as a block: a picture with more is black by itself
MOST_LINES = 15  # bytes 10 that may all follow a byte 13 by chance

COMPRESSION, FILL_ORDER, STRIPS, STRIP_SIZES, TILES, TILE_SIZES = 259, 266, 273, 279, 324, 325  # a TIFF's tags
DEFLATE = frozenset({8, 32946})
NEVER_ZEROS = frozenset({5, 32773})  # LZW, PackBits: black pixels make few codes, and none of zeros twice in a row
UNPACKED_AT_ONCE, MOST_UNPACKED = 2**20, 2**27  # bytes: a picture of 25 million pixels has less than 2**27
# What Pillow does for a tag, undone: number of quarter turns anticlockwise, then whether mirrored.
TURNED: dict[object, tuple[int, bool]] = {
    2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (1, False), 7: (3, True), 8: (3, False)
}  # fmt: skip


class DamagedError(Exception):
    """Part of the picture is missing or wrong; the message says how that shows."""


def checked_png(data: bytes) -> bytes:
    """A PNG without its texts, colour profile and camera data, after its checksums have been looked at.

    Pillow does not look at those of the pixels.

    Raises:
        DamagedError: a checksum is wrong, or the file breaks off.
    """
    kept = [PNG_SIGNATURE]
    at, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", data[at : at + 8].ljust(8, b"\0"))
        chunk = data[at : at + 12 + length]
        if len(chunk) < 12 + length:
            raise DamagedError("its data break off")
        if kind not in PNG_NOTES:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise DamagedError(f"the checksum of its {kind.decode('latin-1')!a} is wrong")
            kept.append(chunk)
        at += len(chunk)
    return b"".join(kept)


def check_for_lost_blocks(data: bytes) -> None:
    """For formats without checksums (BMP, TIFF): look for blocks of zeros, and for what a transfer as text leaves.

    Raises:
        DamagedError: there are such, or a TIFF's own checksums are wrong.
    """
    runs = list(zero_runs(data, BLOCK))
    pages = [(start, end) for start, end in runs if start % PAGE == 0 and end % PAGE == 0]
    blocks = [(start, end) for start, end in runs if start % BLOCK == 0 and end % BLOCK == 0]
    tails = [(start, end) for start, end in runs if start % PAGE == 0 and end == len(data)]
    # A black background has runs in almost every row: some begin and end at borders of blocks by chance.
    for start, end in pages if len(runs) > MOST_RUNS else blocks + tails:
        raise DamagedError(f"{end - start} bytes of zeros stand in its data, as a lost block leaves")
    lines = data.count(b"\n")
    if lines and lines == data.count(b"\r\n"):
        longer = data.startswith(b"BM") and len(data) == int.from_bytes(data[2:6], "little") + lines
        if longer or lines > MOST_LINES:
            raise DamagedError("each of its bytes 10 follows a byte 13, as a transfer in text mode leaves it")
    if data.startswith((b"II", b"MM")):
        _check_strips(data)


def _check_strips(data: bytes) -> None:
    """For a TIFF's compressed pixels: libtiff does not look at zlib's checksums, and takes zeros as codes."""
    tags = ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8])  # BigTIFFs say 43
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
                raise DamagedError(f"{end - start} bytes of zeros stand in its data, as a lost block leaves")
            continue
        unpacking, packed = zlib.decompressobj(), data[offset : offset + size]
        while size and room > 0 and not unpacking.eof:
            try:
                part = unpacking.decompress(packed, UNPACKED_AT_ONCE)
            except zlib.error as error:
                raise DamagedError("its data do not fit together") from error
            packed = unpacking.unconsumed_tail
            room -= len(part)
            if not (part or packed or unpacking.eof):
                raise DamagedError("its data break off")


def zero_runs(data: bytes, fewest: int, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Where at least so many zero bytes stand in a row, between `start` and `end`: first and behind the last."""
    end = len(data) if end is None else end
    wanted = bytes(fewest)
    while (start := data.find(wanted, start, end)) >= 0:
        match = ZEROS.match(data, start, end)
        behind = match.end() if match else start
        yield start, behind
        start = behind


def turned_back(pixels: Pixels, orientation: object) -> Pixels:
    """The pixels as they are stored, of a picture that Pillow turned because of its tag 274."""
    turns, mirrored = TURNED.get(orientation, (0, False))
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
