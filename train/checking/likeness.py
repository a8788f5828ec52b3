"""How this cohort's pictures differ from those that a finished bundle was trained on: scale, colour, sharpness.

For information: one's own training needs no likeness, but the bundle's figures hold only for pictures like its own.
"""

import math

import numpy as np

from infer.bundle.manifest import Manifest
from infer.bundle.reference import Span
from infer.drift.measures import title
from infer.pictures.measure import JPEG_QUALITY
from infer.scoring.unusual import deviation, likeness
from train.checking.finding import Finding, fine
from train.checking.summaries import Summaries
from train.core.arrays import Floats

DIFFERS = 0.5  # of the way from the bundle's median patient to its outermost 1%, by which the median here may lie off


def findings_of_likeness(
    looked: Summaries, manifest: Manifest, picture_size: tuple[int, int] | None = None
) -> list[Finding]:
    """Which measures differ, by how much, and how many patients the bundle would hold up for them."""
    usual = manifest.reference.usual
    values = _per_patient(looked)
    if not values:
        return []
    spans = {name: span for name, span in usual.spans.items() if name in values}
    off = {name: deviation(float(np.median(values[name])), span) for name, span in spans.items()}
    differs = sorted((name for name in off if abs(off[name]) > DIFFERS), key=lambda name: -abs(off[name]))
    held = _held_up(values, manifest)
    patients = len(next(iter(values.values())))
    tail = f"By these measures the bundle would leave {held} of {patients} patients undecided"
    found = _of_size(looked, manifest, picture_size)
    if not differs:
        return [fine("the bundle's pictures", f"Colour, sharpness and scale are those of its training. {tail}"), *found]
    listed = [f"{title(name)}: {_said(float(np.median(values[name])), spans[name])}" for name in differs]
    what = (
        f"These pictures differ from those that the bundle was trained on in {', '.join(map(title, differs))}. {tail}"
    )
    todo = "Use the bundle only after validating it here; train your own if it fails."
    return [fine("the bundle's pictures", what, f"{_scale(off, values, spans)}{todo}", listed), *found]


def _per_patient(looked: Summaries) -> dict[str, Floats]:
    """(patients with pictures,) means of each measure."""
    if looked.measures is None or not len(looked.names):
        return {}
    some = looked.counts() > 0
    table = looked.measures.copy()
    if not looked.files[JPEG_QUALITY].isna().any():
        table[JPEG_QUALITY] = looked.files[JPEG_QUALITY].to_numpy()
    return {str(name): looked.per_patient(table[name].to_numpy(np.float64))[some] for name in table}


def _held_up(values: dict[str, Floats], manifest: Manifest) -> int:
    usual = manifest.reference.usual
    names = [name for name in usual.spans if name in values]
    rows = np.stack([values[name] for name in names], axis=1).tolist()
    # Of the patient's own measures age and count are left out: they are not of the pictures.
    inside = {name: (span.low + span.high) / 2 for name, span in usual.ranges.items()}
    return sum(likeness(dict(zip(names, row, strict=True)) | inside, usual).p < usual.limit for row in rows)


def _said(value: float, span: Span) -> str:
    return f"{value:.3g} instead of {span.middle:.3g}, usually {span.low:.3g} to {span.high:.3g}"


def _scale(off: dict[str, float], values: dict[str, Floats], spans: dict[str, Span]) -> str:
    """A sentence if cell and nucleus are both larger, or both smaller."""
    areas = [name for name in ("cell_area", "nucleus_area") if name in off]
    if len(areas) < 2 or min(abs(off[name]) for name in areas) <= DIFFERS or off[areas[0]] * off[areas[1]] < 0:
        return ""
    ratios = [float(np.median(values[name])) / spans[name].middle for name in areas]
    times = math.sqrt(math.prod(ratios) ** 0.5)
    return f"Cells are {times:.2f} times as wide: another magnification, or other cells; see --pixel-size. "


def _of_size(looked: Summaries, manifest: Manifest, picture_size: tuple[int, int] | None) -> list[Finding]:
    sizes, times = np.unique(looked.files[["width", "height"]].to_numpy(np.int64), axis=0, return_counts=True)
    width, height = picture_size or tuple(sizes[times.argmax()].tolist())
    if manifest.drift.knows_size(width, height):
        return []
    what = f"Pictures are {width} x {height} pixels, those of the bundle's training {manifest.drift.sizes}"
    todo = "If they are the centres of larger ones, say how large those are: --picture-size. Else see magnification."
    return [fine("the bundle's pictures", what, todo)]
