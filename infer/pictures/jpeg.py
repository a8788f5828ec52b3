"""Decodes JPEGs strictly: a damaged file decodes to a wrong picture, and libjpeg only warns or stays silent.

Detected are truncated or inconsistent data, runs of zero bytes, missing scans of a progressive picture, and the lasting
step in brightness or colour that lost bytes cause.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import mul

import numpy as np
import numpy.typing as npt
import simplejpeg

from infer.pictures.damage import DamagedError, Pixels, zero_runs

# In 1,816 pictures of an analyser, compressed in seven ways, no scan had more than 5 zero bytes in a row.
FEWEST_ZEROS = 16  # bytes
LONGEST_CODES = 64  # bits, more than the zeros at the end of one code and the start of the next
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # a marker other than a stuffed byte or a restart marker
Segment = tuple[int, bytes]  # a marker and its content
COMPRESSED, CODES, END_OF_IMAGE, START_OF_SCAN, QUANTA = 0, 0xC4, 0xD9, 0xDA, 0xDB  # 0 is no marker
FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
PROGRESSIVE, ARITHMETIC = frozenset({0xC2, 0xCA}), frozenset({0xC9, 0xCA})
SEVERAL_BLOCKS = frozenset(range(0x10, 0xF0, 0x10))  # symbols of progressive pictures: end of band for several blocks
TILE = 8  # pixels: side of a JPEG block
UNITS = {"444": (8, 8), "422": (8, 16), "420": (16, 16), "440": (16, 8), "411": (8, 32), "Gray": (8, 8)}
# Levels of brightness and the two colour differences; 1,816 good pictures of 224 x 224 reach 1.64, 0.55 and 0.44. In
# narrower pictures a real edge can be as long as the line: 14 of 10,622 of 128 x 128 exceeded these limits.
YCC = np.array([[0.299, -0.1687, 0.5], [0.587, -0.3313, -0.4187], [0.114, 0.5, -0.0813]])
LARGEST_STEP = np.array([3.0, 1.0, 1.0])
# Rounding alone causes steps of one quantum, and grain causes steps as large as the units' median. 908 of the pictures,
# recompressed in 24 ways with quality 30 to 100, reach 0.82 of the resulting limit.
TIMES_QUANTUM, TIMES_MEDIAN = 1.5, 2.5
RULED = 8  # levels, median difference between two rows of pixels: 99 of 100 good pictures stay below 7.3
SHORTEST_LINE = 200  # pixels
FEWEST_UNITS = 14


def strict_jpeg(data: bytes, colours: str, checked: bool = True) -> Pixels | None:
    """Decode a JPEG; libjpeg's warnings are errors.

    Args:
        colours: RGB, GRAY or CMYK, as stored; a grey picture has (height, width, 1).
        checked: look for what libjpeg does not notice.

    Returns:
        The same pixels as Pillow's; None if this decoder does not support the picture's subsampling.

    Raises:
        DamagedError: data are missing, surplus or wrong, or contain a run of zeros.
    """
    try:
        *_, subsampling = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # KeyError: a subsampling known to libjpeg but not to simplejpeg
        _check_scans(_segments(data), None)
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colours)
    except ValueError as error:
        raise DamagedError("its data are truncated or inconsistent") from error
    if not checked:
        return pixels
    segments = _segments(data)
    _check_scans(segments, pixels)
    unit = None if colours == "CMYK" else UNITS.get(subsampling)
    if unit and has_lasting_step(pixels, unit, _quanta(segments)):
        raise DamagedError("its colours shift at one point and stay shifted, as if bytes were lost")
    return pixels


def _check_scans(segments: Sequence[Segment], pixels: Pixels | None) -> None:
    """Look for runs of zeros in a JPEG's compressed data and for missing scans; without `pixels`, all may be flat."""
    for scan in _scans(segments):
        longest = max((end - start for start, end in zero_runs(scan.data, FEWEST_ZEROS)), default=0)  # bytes
        if longest and 8 * longest > scan.zero_bits(pixels):
            raise DamagedError(f"{longest} zero bytes in a row in its data, as if a disk block was lost")
    if _lacks_a_scan(segments):
        raise DamagedError("its data are truncated")


def flat_tiles(pixels: Pixels, unit: tuple[int, int]) -> int:
    """Number of tiles of 8 x 8 pixels of one colour, ignoring their rim, which the next tile's colour may reach.

    Args:
        unit: height and width of a JPEG's unit. The last units may extend beyond the picture: encoders pad them with
            the edge's pixels.
    """
    height, width = unit
    beyond = ((0, -pixels.shape[0] % height), (0, -pixels.shape[1] % width), (0, 0))
    filled = np.pad(pixels, beyond, mode="edge") if pixels.shape[0] % height or pixels.shape[1] % width else pixels
    rows, columns = filled.shape[0] // TILE, filled.shape[1] // TILE
    tiles = filled.reshape(rows, TILE, columns, TILE, -1)[:, 1:-1, :, 1:-1]
    flat = tiles.max(axis=(1, 3)) == tiles.min(axis=(1, 3))  # (rows, columns, channels)
    return int(flat.all(axis=-1).sum())


def has_lasting_step(pixels: Pixels, unit: tuple[int, int], quanta: npt.NDArray[np.float64]) -> bool:
    """Whether brightness or colour changes by a step along one line of a JPEG's units, and stays changed.

    A JPEG stores each unit's mean as the difference from the previous unit, row by row. If bytes are lost, all units
    from there to the end are shifted: there is an edge above that unit and all those to its right, and it continues in
    the next row up to that unit. Up to a seventh of the units along the line may deviate.

    Args:
        pixels: (H, W, 3), or (H, W, 1) for a grey picture.
        unit: height and width of a unit, in pixels.
        quanta: levels to which the means are rounded: (3,) for brightness and the two colour differences.
    """
    height, width = unit
    columns = pixels.shape[1] // width
    edges = np.arange(height, pixels.shape[0] - 1, height)  # the first pixel row of each row of units except the first
    if columns < FEWEST_UNITS or columns * width < SHORTEST_LINE or len(edges) < 2:
        return False
    rows = pixels[edges + np.array([[-2], [-1], [0], [1]]), : columns * width]  # (4, edges, W, channels)
    mean = np.tile(YCC if pixels.shape[2] == 3 else np.eye(1, 3), (width, 1)).astype(np.float32) / width  # over a unit
    above2, above, below, below2 = (rows.reshape(-1, len(mean)) @ mean).reshape(4, -1, 3)  # each (units, 3)
    # The difference minus the picture's own gradient.
    steps = 1.5 * (below - above) - 0.5 * (below2 - above2)
    median = np.partition(np.abs(steps), len(steps) // 2, axis=0)[len(steps) // 2]
    limits = np.maximum(np.maximum(LARGEST_STEP, TIMES_QUANTUM * quanta), TIMES_MEDIAN * median)
    beyond = np.concatenate([steps > limits, steps < -limits], axis=-1)  # (units, 6)
    # Almost no good picture passes the first test, and the second one is slower.
    return _fills_a_line(beyond, columns) and _fills_a_line(beyond & ~_drawn(pixels, unit).reshape(-1, 1), columns)


def _fills_a_line(found: npt.NDArray[np.bool_], columns: int) -> bool:
    """Whether a kind of step, (units, kinds), is found in all but 1/7 of as many consecutive units as a row has."""
    so_far: npt.NDArray[np.intp] = np.cumsum(np.insert(found, 0, False, axis=0), axis=0)
    in_lines = so_far[columns:] - so_far[:-columns]
    return bool(in_lines.max() >= columns - columns // 7)


def _drawn(pixels: Pixels, unit: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The units above which an edge may belong to the picture: (edges, columns).

    Uniform colour and straight lines are not photographed but drawn: a bar, a frame or a removed background. If such a
    line runs within a unit, rounding causes ripples at the edges of this unit and the next.
    """
    height, width = unit
    columns = pixels.shape[1] // width
    tops = np.arange(0, pixels.shape[0] - 1, height)
    whole = pixels[:, : columns * width]
    inner = whole[np.minimum(tops[:, None] + np.arange(2, TILE - 2), len(whole) - 1)]
    inner = inner.reshape(len(tops), TILE - 4, columns, width, -1)
    flat = (inner.max(axis=(1, 3)) == inner.min(axis=(1, 3))).all(axis=-1)  # (rows of units, columns)
    brightness = whole.reshape(len(whole), columns, -1).mean(axis=-1)  # (H, columns)
    lines = np.abs(np.median(np.diff(brightness, axis=0), axis=1))  # (H - 1,), between a row of pixels and the next
    lines[tops[1:] - 1] = 0  # the edges themselves
    ruled = np.maximum.reduceat(lines, tops) > RULED  # (rows of units,)
    drawn: npt.NDArray[np.bool_] = np.pad(flat | ruled[:, None], ((1, 1), (0, 0)))
    return drawn[:-3] | drawn[1:-2] | drawn[2:-1] | drawn[3:]


def _quanta(segments: Sequence[Segment]) -> npt.NDArray[np.float64]:
    """Levels to which the means of a JPEG's blocks are rounded: (3,) for its components, 0 for missing ones."""
    levels: dict[int, float] = {}  # by table
    tables = b""
    for marker, content in segments:
        if marker in FRAMES:
            tables = content[8::3]
        while marker == QUANTA and content:
            size = 1 + (content[0] >> 4)  # bytes per value
            levels[content[0] & 15] = int.from_bytes(content[1 : 1 + size], "big") / TILE
            content = content[1 + 64 * size :]
    return np.array([levels.get(table, 0.0) for table in tables.ljust(3, b"\xff")[:3]])


def _lacks_a_scan(segments: Sequence[Segment]) -> bool:
    """Whether a JPEG ends before every component has all its coefficients to the last bit."""
    missing: set[tuple[int, int]] = set()  # component and coefficient, of 64
    for marker, content in segments:
        if marker in FRAMES:
            missing = {(component, k) for component in content[6::3] for k in range(64)}
        elif marker == START_OF_SCAN:
            *components, first, last, low = content[1:-3:2] + content[-3:]
            if low & 15 == 0:
                missing -= {(component, k) for component in components for k in range(first, last + 1)}
    return bool(missing)


@dataclass(frozen=True)
class _Scan:
    """A part of a JPEG's compressed data; a progressive JPEG has several."""

    data: bytes
    bits: int  # zero bits that a unit of the picture may take; 0: no unit consists of zeros only
    unit: tuple[int, int]  # height and width in pixels
    units: int  # number in the picture
    flat_alone: bool  # whether zeros mean that the picture is flat there; if not, other scans may add detail

    def zero_bits(self, pixels: Pixels | None) -> float:
        """The most zero bits in a row that are plausible."""
        units: float = self.units
        if self.flat_alone and pixels is not None:
            units = flat_tiles(pixels, self.unit) * TILE * TILE / (self.unit[0] * self.unit[1])
        return self.bits * (units + 2) + LONGEST_CODES


def _scans(segments: Sequence[Segment]) -> Iterator[_Scan]:
    frame, sides, scan = 0, b"", b""
    blocks: dict[int, tuple[int, int]] = {}  # by component: rows and columns of blocks in a unit
    codes: dict[int, int] = {}
    for marker, content in segments:
        if marker in FRAMES:
            frame, sides = marker, content[1:5]
            blocks = {name: (both & 15, both >> 4) for name, both in zip(content[6::3], content[7::3], strict=True)}
        elif marker == CODES:
            codes |= _codes_of_zeros(content)
        elif marker == START_OF_SCAN:
            scan = content
        elif marker == COMPRESSED and frame:
            height, width = (TILE * max(of_one[axis] for of_one in blocks.values()) for axis in (0, 1))
            units = -(-int.from_bytes(sides[:2], "big") // height) * -(-int.from_bytes(sides[2:], "big") // width)
            flat_alone = frame not in PROGRESSIVE and scan[0] == len(blocks)
            bits = height * width // TILE  # far more than the arithmetic coder needs
            if frame not in ARITHMETIC:
                of_blocks = [_zero_bits(table, codes, frame, scan[-3]) for table in scan[2:-3:2]]
                counts = [blocks[name][0] * blocks[name][1] for name in scan[1:-3:2]]
                bits = sum(map(mul, counts, of_blocks)) if all(of_blocks) else 0
            yield _Scan(content, bits, (height, width), units, flat_alone)


def _zero_bits(table: int, codes: dict[int, int], frame: int, first: int) -> int:
    """Zero bits that a block may take in a scan that begins with coefficient `first`; 0: no block is zeros only."""
    mean, nothing_more = codes.get(table >> 4, 0), codes.get(16 | table & 15, 0)
    if frame not in PROGRESSIVE:
        return mean + nothing_more if mean and nothing_more else 0
    return nothing_more if first else max(mean, 1)  # a scan that refines the means has one bit per block


def _codes_of_zeros(content: bytes) -> dict[int, int]:
    """By Huffman table: the length in bits of the all-zero code if it stands for 0 and may be repeated, otherwise 0.

    The symbol 0 means "same mean as the previous block" or "end of block".
    """
    found: dict[int, int] = {}
    while content:
        table, counts = content[0], content[1:17]
        symbols = content[17 : 17 + sum(counts)]
        # An encoder with codes for the end of band of several blocks does not write the code for one block twice.
        repeated = symbols[:1] == b"\0" and not (table & 16 and SEVERAL_BLOCKS.intersection(symbols))
        found[table] = next(bits for bits, count in enumerate(counts, 1) if count) if repeated else 0
        content = content[17 + len(symbols) :]
    return found


def _segments(data: bytes) -> list[Segment]:
    """A JPEG's markers, each with its content without the length; after the start of a scan come its data."""
    found: list[Segment] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != END_OF_IMAGE:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes, any number of which may precede a marker
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((marker, data[at + 4 : end]))
        at = end
        if marker == START_OF_SCAN:
            behind = SCAN_END.search(data, end)
            at = behind.start() if behind else len(data)
            found.append((COMPRESSED, data[end:at]))
    return found
