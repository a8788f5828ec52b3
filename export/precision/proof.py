"""Decides whether int8 and float16 may be shipped, by scoring patients in each precision and in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.parity import ParityError
from infer.bundle.load import Bundle
from infer.bundle.manifest import LARGEST_CHANGE, largest_tolerances, reduced_outputs
from infer.cohort.patient import Cohort
from infer.engine.fallback import Engine
from infer.engine.sessions import CPU, Device
from infer.errors import UsageError
from infer.machine.processors import available_processors
from infer.members.member import Member, Precision
from infer.scoring.cohort import score_cohort
from infer.scoring.ensemble import decide
from infer.scoring.result import Scores
from train.data.bags import Bags

CALIBRATION_CROPS = 256
# Integer arithmetic is exact, but if the float32 block before it rounds differently, some integers change by one.
# Relative noise of 1e-6 and 1e-5 in that block's values changed the self-test's outputs by .001 and .002; a single
# layer that wrongly rounds down changed them by .01 or more (on pictures like the self-test's). In float16 every sum
# may be rounded differently, which changes the result by about as much as float16 itself does.
TOLERANCE = 5e-3
FLOAT16_TOLERANCE = 2.0  # times the largest difference from float32
# Largest allowed difference of the self-test's outputs from float32: for probabilities, and for other outputs as a
# fraction of the largest value. The ImageNet member at 224 moves by .0027 where it was fitted on few drawn cells. What
# float16 may change in patients is LARGEST_CHANGE.
FLOAT16_DIFFERENCE, FLOAT16_SHARE = 5e-3, 0.01


@dataclass(frozen=True)
class Change:
    """The effect of a precision."""

    patients: int  # scored in both precisions
    probability: float  # largest change
    decisions: int  # changed decisions, over all operating points


def calibration_crops(bags: Bags) -> Tensor:
    """Pictures for calibrating activation ranges, spread over the training patients: (CALIBRATION_CROPS, H, W, 3)."""
    chosen = np.linspace(0, len(bags.crops) - 1, CALIBRATION_CROPS).astype(np.int64)
    return bags.crops[torch.from_numpy(chosen)]


def tolerance(
    members: Sequence[Member[Any]], precision: Precision, exact: dict[str, list[float]], found: dict[str, list[float]]
) -> dict[str, float]:
    """Largest difference from `found` that the self-test will allow, by output.

    Args:
        members: the members of the bundle.
        precision: int8 or float16.
        exact: the self-test's outputs in float32.
        found: the self-test's outputs in the given precision.

    Raises:
        ParityError: float16 is so far from float32 that something else must be wrong.
    """
    if precision == "int8":
        return dict.fromkeys(reduced_outputs(members, precision), TOLERANCE)
    names = reduced_outputs(members, precision)
    moved = {name: float(np.abs(np.subtract(exact[name], found[name])).max()) for name in names}
    largest = largest_tolerances(members)
    for name, value in moved.items():
        allowed = FLOAT16_DIFFERENCE
        if name in largest:
            allowed = min(FLOAT16_SHARE * float(np.abs(exact[name]).max()), largest[name] / FLOAT16_TOLERANCE)
        if not value <= allowed:  # so that NaN fails too
            raise ParityError(f"float16 changes {name} by {value:.2g}, allowed {allowed:.2g}. Export without --reduced")
    return {name: max(FLOAT16_TOLERANCE * value, TOLERANCE) for name, value in moved.items()}


def check(bundle: Bundle, cohort: Cohort, precision: Precision) -> Change:
    """Score a cohort on the CPU in float32 and in another precision, and check the difference.

    Args:
        bundle: bundle with graphs in this precision; for float16 from `float16.on_a_gpu`.
        cohort: patients to score.
        precision: int8 or float16.

    Raises:
        UsageError: no patient in the cohort can be scored.
        ParityError: a decision changes, or a probability changes too much, so the graphs must not be shipped.
    """
    change = compare(bundle, cohort, precision)
    if not change.patients:
        raise UsageError(
            f"{cohort.folder}: no patient in this cohort can be scored, so the effect of {precision} cannot be measured"
        )
    if change.decisions or not change.probability <= LARGEST_CHANGE:
        raise ParityError(
            f"{precision} changes {change.decisions} decisions of {change.patients} patients and a probability by "
            f"{change.probability:.2g}, allowed {LARGEST_CHANGE}. Export without --reduced"
        )
    return change


def compare(bundle: Bundle, cohort: Cohort, precision: Precision) -> Change:
    """Measure the effect of a precision on the patients of a cohort.

    A patient who can be scored in only one of the two precisions counts as a changed decision.

    Raises:
        ParityError: this CPU cannot compute in this precision.
    """
    points = list(bundle.manifest.ensemble.operating_points.values())
    patients, largest, changed = 0, 0.0, 0
    for a, b in zip(_scores(bundle, cohort, "float32"), _scores(bundle, cohort, precision), strict=True):
        if a is None or b is None:
            changed += a is not b
            continue
        patients += 1
        largest = max(largest, abs(a.probability - b.probability))
        changed += sum(decide(a.probability, point) != decide(b.probability, point) for point in points)
    return Change(patients, largest, changed)


def _scores(bundle: Bundle, cohort: Cohort, precision: Precision) -> list[Scores | None]:
    engine = Engine(bundle, Device(CPU, precision), None, available_processors(), precision)
    if engine.precision != precision:
        raise ParityError(f"{precision} does not run here: {'; '.join(engine.downgrades) or 'the bundle has none'}")
    results = score_cohort(cohort, engine, bundle.manifest, "balanced", available_processors())
    return [result.scores for result in results]
