"""Whether int8 and float16 may ship: what they change in patients who are scored in them and in float32."""

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
# Integers are exact, but where the float32 block before them rounds otherwise, some move by one step. Relative noise of
# 1e-6 and 1e-5 in its values moved the self-test's outputs by .001 and .002, one layer that rounds down by .01 and
# more (on pictures like the self-test's). In float16 every sum may be rounded otherwise, and the result moves by about
# as much as float16 itself moves it.
TOLERANCE = 5e-3
FLOAT16_TOLERANCE = 2.0  # times the largest difference from float32
# Largest difference from float32 of the self-test's outputs: of a probability, and of others as a share of the largest.
FLOAT16_DIFFERENCE, FLOAT16_SHARE = 2.5e-3, 0.01


@dataclass(frozen=True)
class Change:
    """What a precision changes."""

    patients: int
    probability: float  # at most
    decisions: int  # at any operating point


def calibration_crops(bags: Bags) -> Tensor:
    """Pictures from which the activations' ranges are taken, spread over the training patients."""
    chosen = np.linspace(0, len(bags.crops) - 1, CALIBRATION_CROPS).astype(np.int64)
    return bags.crops[torch.from_numpy(chosen)]


def tolerance(
    members: Sequence[Member[Any]], precision: Precision, exact: dict[str, list[float]], found: dict[str, list[float]]
) -> dict[str, float]:
    """Largest difference from `found` that the self-test allows.

    Args:
        exact: the self-test's outputs in float32, `found` those in the precision.

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
            raise ParityError(
                f"float16 moves {name} by {value:.2g}, {allowed:.2g} is allowed. Export without --reduced"
            )
    return {name: max(FLOAT16_TOLERANCE * value, TOLERANCE) for name, value in moved.items()}


def check(bundle: Bundle, cohort: Cohort, precision: Precision) -> Change:
    """Score a cohort both ways on the processor.

    Args:
        bundle: with the graphs in this precision; for float16 `half.on_a_gpu`.

    Raises:
        UsageError: nobody in the cohort can be scored.
        ParityError: a decision changes, or a probability by too much, for them to ship.
    """
    change = compare(bundle, cohort, precision)
    if not change.patients:
        raise UsageError(
            f"{cohort.folder}: nobody in this cohort can be scored, so nothing shows what {precision} changes"
        )
    if change.decisions or not change.probability <= LARGEST_CHANGE:
        raise ParityError(
            f"{precision} changes {change.decisions} decisions of {change.patients} patients and a probability by "
            f"{change.probability:.2g}, {LARGEST_CHANGE} is allowed. Export without --reduced"
        )
    return change


def compare(bundle: Bundle, cohort: Cohort, precision: Precision) -> Change:
    """What a precision changes in the patients of a cohort.

    A patient who gets a number one way alone is a changed decision.

    Raises:
        ParityError: this processor does not compute in it.
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
