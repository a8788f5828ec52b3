"""Whether the graph in integers may ship: what it changes in patients who are scored with it and without."""

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch
from torch import Tensor

from export.parity import ParityError
from infer.bag import Scores
from infer.bundle import Bundle
from infer.cohort import Cohort
from infer.ensemble import decide
from infer.errors import UsageError
from infer.scorer import Scorer
from infer.scoring import score_cohort
from infer.sessions import CPU, Device, available_cpus
from train.crops import Bags

CALIBRATION_CROPS = 256
# Integers are exact, but where the float32 block before them rounds otherwise, some move by one step. Relative noise of
# 1e-6 and 1e-5 in its values moved the self-test's outputs by .001 and .002, one layer that rounds down by .01 and
# more (on pictures like the self-test's).
TOLERANCE = 5e-3
# Of the self-test's outputs those that hang on the mixtures' encoders.
OUTPUTS = ("moe", "moe_maps", "moe_image", "moe_gate")
LARGEST_CHANGE = 0.01  # of a patient's probability


@dataclass(frozen=True)
class Change:
    """What integers change."""

    patients: int
    probability: float  # at most
    decisions: int  # at any operating point


def calibration_crops(bags: Bags) -> Tensor:
    """Pictures from which the activations' ranges are taken, spread over the training patients."""
    chosen = np.linspace(0, len(bags.crops) - 1, CALIBRATION_CROPS).astype(np.int64)
    return bags.crops[torch.from_numpy(chosen)]


def check(bundle: Bundle, cohort: Cohort) -> Change:
    """Score a cohort both ways.

    Args:
        bundle: with the graph in integers.

    Raises:
        UsageError: nobody in the cohort can be scored.
        ParityError: a decision changes, or a probability by too much, for the graph to ship.
    """
    change = compare(bundle, cohort)
    if not change.patients:
        raise UsageError(f"{cohort.folder}: nobody in this cohort can be scored, so nothing shows what int8 changes")
    if change.decisions or not change.probability <= LARGEST_CHANGE:
        raise ParityError(
            f"int8 changes {change.decisions} decisions of {change.patients} patients and a probability by "
            f"{change.probability:.2g}, {LARGEST_CHANGE} is allowed. Export without --int8"
        )
    return change


def compare(bundle: Bundle, cohort: Cohort) -> Change:
    """What integers change in the patients of a cohort.

    A patient who gets a number one way alone is a changed decision.
    """
    exact = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, int8=None))
    points = list(bundle.manifest.ensemble.operating_points.values())
    patients, largest, changed = 0, 0.0, 0
    for a, b in zip(_scores(exact, cohort), _scores(bundle, cohort), strict=True):
        if a is None or b is None:
            changed += a is not b
            continue
        patients += 1
        largest = max(largest, abs(a.probability - b.probability))
        changed += sum(decide(a.probability, point) != decide(b.probability, point) for point in points)
    return Change(patients, largest, changed)


def _scores(bundle: Bundle, cohort: Cohort) -> list[Scores | None]:
    networks = Scorer(bundle, Device(CPU, "int8"), None, available_cpus())
    return [result.scores for result in score_cohort(cohort, networks, bundle.manifest, "balanced", available_cpus())]
