"""Damages picture files as disks, network shares and transfers do, and measures how much of it is found.

    python -m tests.damage FOLDER --number 300 --seed 0

Damage follows from the file's bytes and the random numbers alone. No picture is written anywhere.
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

BLOCK, PAGE = 512, 4096  # bytes: what a disk loses at the least, what a file system writes at once
CROP = 112  # pixels
END_OF_IMAGE = b"\xff\xd9"
SLIGHT_LEVELS, SLIGHT_SHARE = 2, 0.02  # a crop is slightly harmed if fewer of its pixels than this differ by more

Damage = Callable[[bytes, random.Random], bytes]


def hole(data: bytes, rng: random.Random, size: int, step: int) -> bytes:
    """`size` zero bytes, at a multiple of `step`."""
    return _with_zeros(data, rng.randrange(0, max(1, len(data) - step + 1), step), size)


def hole_at_a_third(data: bytes, _: random.Random) -> bytes:
    return _with_zeros(data, len(data) // 3, BLOCK)


def cut(data: bytes, rng: random.Random, step: int, end: bytes = b"") -> bytes:
    """The beginning, up to a multiple of `step`; a JPEG can be closed with its end marker after that."""
    return data[: rng.randrange(min(step, len(data) - 1), len(data), step)] + end


def lost(data: bytes, rng: random.Random, size: int) -> bytes:
    at = rng.randrange(max(1, len(data) - size + 1))
    return data[:at] + data[at + size :]


def as_text_to_windows(data: bytes, _: random.Random) -> bytes:
    return data.replace(b"\n", b"\r\n")


def as_text_from_windows(data: bytes, _: random.Random) -> bytes:
    return data.replace(b"\r\n", b"\n")


def tail_of_zeros(data: bytes, rng: random.Random) -> bytes:
    """Room was made for the whole file, and only its first pages were written."""
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

ENCODINGS: dict[str, tuple[str, dict[str, object]]] = {  # Pillow's name of the format, and its options
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
    """The kinds of damage that a file of this format can take."""
    return KINDS | JPEG_KINDS if data.startswith(b"\xff\xd8") else KINDS


def encoded(data: bytes, encoding: str) -> bytes:
    """The picture saved anew; "as they are" leaves it."""
    name, options = ENCODINGS[encoding]
    if not name:
        return data
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").save(file, name, **options)
    return file.getvalue()


@dataclass
class Count:
    """What became of the files that one kind of damage changed."""

    damaged: int = 0
    rejected: int = 0
    unharmed: int = 0  # the crop is the good one's
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
    """For each encoding: its name, how many good pictures are lost, and the count for each kind of damage."""
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
    """As Markdown: a row a kind of damage, a column an encoding."""
    rows = [
        ["", *(encoding for encoding, _, _ in measured)],
        ["---"] * (len(measured) + 1),
        ["good ones lost", *(str(lost_ones) for _, lost_ones, _ in measured)],
    ]
    for kind in KINDS | JPEG_KINDS:
        rows.append([kind, *(str(counts.get(kind, Count())) for _, _, counts in measured)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--number", type=click.IntRange(min=1), default=300, show_default=True, help="Pictures to damage")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(folder: Path, number: int, seed: int) -> None:
    """Damage pictures of FOLDER (a folder of patients) in memory, and print the share that is rejected."""
    warnings.simplefilter("ignore", UserWarning)  # Pillow's, on broken TIFF tags
    paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
    good = [path for path in paths if is_taken(path.read_bytes())]
    click.echo(f"{folder}: {len(paths)} pictures, {len(paths) - len(good)} good ones lost")
    chosen = random.Random(seed).sample(good, min(number, len(good)))
    click.echo(
        f"\n{len(chosen)} of them damaged. Share rejected; of those not rejected how many have a crop that is unharmed "
        f"/ differs by more than {SLIGHT_LEVELS} levels in less than {SLIGHT_SHARE:.0%} of its pixels / in more.\n"
    )
    click.echo(table(list(measure([path.read_bytes() for path in chosen], seed))))


if __name__ == "__main__":
    main()
