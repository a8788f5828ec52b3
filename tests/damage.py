"""Damages picture files like faulty disks, network shares and transfers do, and measures how much is detected.

    python -m tests.damage FOLDER --number 300 --seed 0

Damage depends only on the file's bytes and the random seed. No picture is written anywhere.
"""

import io
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
from PIL import Image

from infer.pictures.decode import RejectedImage, decode_crop
from infer.pictures.listing import SUFFIXES

BLOCK, PAGE = 512, 4096  # bytes: smallest unit lost by a disk, unit written by a file system
CROP = 112  # pixels
END_OF_IMAGE = b"\xff\xd9"
SLIGHT_LEVELS, SLIGHT_SHARE = 2, 0.02  # slight: less than this share of the crop's pixels differ by more levels

Damage = Callable[[bytes, random.Random], bytes]


def hole(data: bytes, rng: random.Random, size: int, step: int) -> bytes:
    """Overwrite `size` bytes with zeros, at a multiple of `step`."""
    return _with_zeros(data, rng.randrange(0, max(1, len(data) - step + 1), step), size)


def hole_at_a_third(data: bytes, _: random.Random) -> bytes:
    return _with_zeros(data, len(data) // 3, BLOCK)


def cut(data: bytes, rng: random.Random, step: int, end: bytes = b"") -> bytes:
    """Truncate at a multiple of `step`; `end` can add a JPEG's end marker."""
    return data[: rng.randrange(min(step, len(data) - 1), len(data), step)] + end


def lost(data: bytes, rng: random.Random, size: int) -> bytes:
    at = rng.randrange(max(1, len(data) - size + 1))
    return data[:at] + data[at + size :]


def as_text_to_windows(data: bytes, _: random.Random) -> bytes:
    return data.replace(b"\n", b"\r\n")


def as_text_from_windows(data: bytes, _: random.Random) -> bytes:
    return data.replace(b"\r\n", b"\n")


def tail_of_zeros(data: bytes, rng: random.Random) -> bytes:
    """Space was allocated for the whole file, but only its first pages were written."""
    step = next(size for size in (PAGE, BLOCK, 1) if size < len(data))
    return _with_zeros(data, rng.randrange(step, len(data), step), len(data))


def _with_zeros(data: bytes, at: int, size: int) -> bytes:
    end = min(at + size, len(data))
    return data[:at] + bytes(end - at) + data[end:]


KINDS: dict[str, Damage] = {
    "512 zero bytes at a multiple of 512": partial(hole, size=BLOCK, step=BLOCK),
    "512 zero bytes anywhere": partial(hole, size=BLOCK, step=1),
    "4096 zero bytes at a multiple of 4096": partial(hole, size=PAGE, step=PAGE),
    "512 zero bytes at a third": hole_at_a_third,
    "cut anywhere": partial(cut, step=1),
    "cut at a multiple of 512": partial(cut, step=BLOCK),
    "1 byte lost": partial(lost, size=1),
    "16 bytes lost": partial(lost, size=16),
    "100 bytes lost": partial(lost, size=100),
    "512 bytes lost": partial(lost, size=512),
    "text mode, LF to CRLF": as_text_to_windows,
    "text mode, CRLF to LF": as_text_from_windows,
    "a tail of zeros": tail_of_zeros,
}
JPEG_KINDS: dict[str, Damage] = {
    "cut anywhere, end marker behind it": partial(cut, step=1, end=END_OF_IMAGE),
    "cut at a multiple of 512, end marker behind it": partial(cut, step=BLOCK, end=END_OF_IMAGE),
}

ENCODINGS: dict[str, tuple[str, dict[str, object]]] = {  # Pillow's name of the format, and options
    "as they are": ("", {}),
    "JPEG 90, optimised": ("JPEG", {"quality": 90, "optimize": True}),
    "JPEG 90, progressive": ("JPEG", {"quality": 90, "progressive": True}),
    "PNG": ("PNG", {}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}


def kinds_for(data: bytes) -> dict[str, Damage]:
    """The kinds of damage that apply to a file of this format."""
    return KINDS | JPEG_KINDS if data.startswith(b"\xff\xd8") else KINDS


def encoded(data: bytes, encoding: str) -> bytes:
    """The picture re-encoded; "as they are" leaves it unchanged."""
    name, options = ENCODINGS[encoding]
    if not name:
        return data
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").save(file, name, **options)
    return file.getvalue()


@dataclass
class Count:
    """Counts of the outcomes for one kind of damage."""

    damaged: int = 0
    rejected: int = 0
    unharmed: int = 0  # the crop is identical to that of the intact file
    slight: int = 0
    worse: int = 0

    def add(self, good: bytes, bad: bytes) -> None:
        if good == bad:
            return
        self.damaged += 1
        try:
            crop = decode_crop(bad, CROP)[0]
        except RejectedImage:
            self.rejected += 1
            return
        off = np.abs(crop.astype(int) - decode_crop(good, CROP)[0]).max(axis=-1)  # (112, 112)
        if not off.any():
            self.unharmed += 1
        elif (off > SLIGHT_LEVELS).mean() < SLIGHT_SHARE:
            self.slight += 1
        else:
            self.worse += 1

    def __str__(self) -> str:
        if not self.damaged:
            return "-"
        missed = self.damaged - self.rejected
        rest = f", {missed}: {self.unharmed} / {self.slight} / {self.worse}" if missed else ""
        return f"{self.rejected / self.damaged:.1%} of {self.damaged}{rest}"


def is_taken(data: bytes) -> bool:
    try:
        decode_crop(data, CROP)
    except RejectedImage:
        return False
    return True


def measure(pictures: Sequence[bytes], seed: int) -> Iterator[tuple[str, int, dict[str, Count]]]:
    """For each encoding: its name, the number of intact pictures rejected, and the counts for each kind of damage."""
    for encoding in ENCODINGS:
        lost_ones = 0
        counts: dict[str, Count] = {}
        for number, picture in enumerate(pictures):
            good = encoded(picture, encoding)
            if not is_taken(good):
                lost_ones += 1
                continue
            for kind, damage in kinds_for(good).items():
                rng = random.Random(f"{seed} {number} {kind}")
                counts.setdefault(kind, Count()).add(good, damage(good, rng))
        yield encoding, lost_ones, counts


def table(measured: Sequence[tuple[str, int, dict[str, Count]]]) -> str:
    """Markdown table with one row per kind of damage and one column per encoding."""
    rows = [
        ["", *(encoding for encoding, _, _ in measured)],
        ["---"] * (len(measured) + 1),
        ["intact pictures rejected", *(str(lost_ones) for _, lost_ones, _ in measured)],
    ]
    for kind in KINDS | JPEG_KINDS:
        rows.append([kind, *(str(counts.get(kind, Count())) for _, _, counts in measured)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--number", type=click.IntRange(min=1), default=300, show_default=True, help="Pictures to damage")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(folder: Path, number: int, seed: int) -> None:
    """Damage pictures from FOLDER (a folder of patients) in memory, and print the share that is rejected."""
    warnings.simplefilter("ignore", UserWarning)  # from Pillow, about broken TIFF tags
    paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
    good = [path for path in paths if is_taken(path.read_bytes())]
    click.echo(f"{folder}: {len(paths)} pictures, {len(paths) - len(good)} intact pictures rejected")
    chosen = random.Random(seed).sample(good, min(number, len(good)))
    click.echo(
        f"\n{len(chosen)} of them were damaged. Share rejected; of those not rejected, the number with a crop that is "
        f"identical / differs by more than {SLIGHT_LEVELS} levels in less than {SLIGHT_SHARE:.0%} of its pixels / in "
        "more.\n"
    )
    click.echo(table(list(measure([path.read_bytes() for path in chosen], seed))))


if __name__ == "__main__":
    main()
