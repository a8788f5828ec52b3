"""The geometry of the charts, in per cent of their width; templates draw them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from infer.bundle.manifest import OperatingPoint

BINS = 20  # of the histogram
HEIGHT = 140  # px of the histogram's plot


@dataclass(frozen=True)
class Zone:
    """A stretch of the scale from 0 to 1."""

    decision: str  # reactive, refer, malignant
    left: str
    width: str


@dataclass(frozen=True)
class Bar:
    """A bar of the histogram."""

    left: str
    width: str
    top: str  # px
    height: str  # px
    patients: int


@dataclass(frozen=True)
class Histogram:
    """Scored patients by probability."""

    bars: tuple[Bar, ...]
    most: int  # patients in the highest bar


@dataclass(frozen=True)
class Anchored:
    """A mark on the scale with a label that stays inside the picture."""

    place: str
    label: str
    anchor: str  # SVG's text-anchor


def share(value: float) -> str:
    """A place on the scale from 0 to 1, as SVG and CSS write it."""
    return f"{100 * min(max(value, 0.0), 1.0):.2f}%"


def zones(point: OperatingPoint) -> tuple[Zone, ...]:
    """The three decisions on the scale from 0 to 1; a zone without width is left out."""
    edges = (0.0, point.refer_low, point.refer_high, 1.0)
    spans = zip(("reactive", "refer", "malignant"), pairwise(edges), strict=True)
    return tuple(Zone(name, share(low), share(high - low)) for name, (low, high) in spans if high > low)


def refer_centre(point: OperatingPoint) -> str:
    """Where `refer` can be written below its zone without touching the words at both ends; empty: nowhere."""
    centre = (point.refer_low + point.refer_high) / 2
    return share(centre) if point.refer_low < point.refer_high and 0.35 <= centre <= 0.65 else ""


def histogram(counts: Sequence[int]) -> Histogram:
    """Bars for counts of patients in bins of equal width from 0 to 1."""
    most, width = max(counts), 1 / len(counts)
    bars = []
    for index, patients in enumerate(counts):
        # A bar of one patient among thousands must still be seen.
        height = max(2.0, HEIGHT * patients / most) if patients else 0.0
        bars.append(
            Bar(
                share((index + 0.08) * width),
                share(0.84 * width),
                f"{HEIGHT - height:.1f}",
                f"{height:.1f}",
                patients,
            )
        )
    return Histogram(tuple(bars), most)


def bin_of(probability: float) -> int:
    """The histogram's bin of a probability."""
    return min(int(probability * BINS), BINS - 1)


def anchored(value: float, label: str) -> Anchored:
    """A mark at a value from 0 to 1."""
    return Anchored(share(value), label, "start" if value < 0.15 else "end" if value > 0.85 else "middle")
