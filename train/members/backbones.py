"""Widths and input sizes of SCAN's backbone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneDimensions:
    """Sizes a checkpoint needs to rebuild its network."""

    widths: tuple[int, ...] = (32, 64, 128, 256)  # one basic block each, every one after the first halves the picture
    shrink: int = 1  # the picture is averaged over squares of this many pixels a side first


BACKBONES = {
    "width-32": BackboneDimensions(),
    "width-16": BackboneDimensions(widths=(16, 32, 64, 128)),
    "width-32-half-input": BackboneDimensions(shrink=2),
    "width-16-half-input": BackboneDimensions(widths=(16, 32, 64, 128), shrink=2),
    "width-64": BackboneDimensions(widths=(64, 128, 256, 512)),
}
