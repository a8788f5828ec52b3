"""Shared by all figures: atomic writing, one palette, and the label for the optimistic protocol."""

from pathlib import Path

from matplotlib.figure import Figure

from train.core.files import written_whole

REACTIVE, MALIGNANT, NEUTRAL = "#3f7fb3", "#c1443c", "#8893a0"
OPTIMISTIC = "report protocol: optimistic"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with written_whole(path) as part:
        figure.savefig(part, format="png", dpi=150)
