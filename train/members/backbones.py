"""Widths and input sizes of SCAN's backbone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneDimensions:
    """Sizes needed to rebuild the network from a checkpoint."""

    widths: tuple[int, ...] = (32, 64, 128, 256)  # channels of each basic block; all but the first halve the resolution
    shrink: int = 1  # first, the picture is average-pooled over squares of this many pixels a side


BACKBONES = {
    "width-32": BackboneDimensions(),
    "width-16": BackboneDimensions(widths=(16, 32, 64, 128)),
    "width-32-half-input": BackboneDimensions(shrink=2),
    "width-16-half-input": BackboneDimensions(widths=(16, 32, 64, 128), shrink=2),
    "width-64": BackboneDimensions(widths=(64, 128, 256, 512)),
}
