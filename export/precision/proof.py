"""Decides whether int8 may be shipped, by scoring patients in it and in float32."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export.parity import ParityError
from infer.bundle.load import Bundle
from infer.bundle.manifest import LARGEST_CHANGE, Ensemble
from infer.cohort.patient import Cohort
from infer.engine.fallback import Engine
from infer.engine.sessions import CPU, Device
from infer.errors import UsageError
from infer.machine.processors import available_processors
from infer.members.member import Precision
from infer.scoring.cohort import score_patients
from infer.scoring.ensemble import decide_patient
from infer.scoring.result import PatientResult, Scores
from train.data.bags import Bags

CALIBRATION_CROPS = 384  # calibration takes 4 GB with 512
# Integer arithmetic is exact, but if the float32 block before it rounds differently, some integers change by one.
# Relative noise of 1e-6 and 1e-5 in that block's values changed the self-test's outputs by .001 and .002; a single
# layer that wrongly rounds down changed them by .01 or more (on pictures like the self-test's).
TOLERANCE = 5e-3


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


def check(bundle: Bundle, cohort: Cohort, precision: Precision) -> Change:
    """Score a cohort on the CPU in float32 and in another precision, and check the difference.

    Args:
        bundle: bundle with graphs in this precision.
        cohort: patients to score.
        precision: int8.

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
    ensemble = bundle.manifest.ensemble
    patients, largest, changed = 0, 0.0, 0
    for a, b in zip(_scores(bundle, cohort, "float32"), _scores(bundle, cohort, precision), strict=True):
        if a.scores is None or b.scores is None:
            changed += a.scores is not b.scores
            continue
        patients += 1
        largest = max(largest, abs(a.scores.probability - b.scores.probability))
        changed += sum(
            _decided(a.scores, ensemble, point) != _decided(b.scores, ensemble, point)
            for point in ensemble.operating_points
        )
        changed += bool(a.unusual) != bool(b.unusual)  # held up in one precision alone
    return Change(patients, largest, changed)


def _decided(scores: Scores, ensemble: Ensemble, point: str) -> str:
    return decide_patient(scores.probability, scores.disagreement_of_weighted, ensemble, point)


def _scores(bundle: Bundle, cohort: Cohort, precision: Precision) -> list[PatientResult]:
    engine = Engine(bundle, Device(CPU, precision), None, available_processors(), precision)
    if engine.precision != precision:
        raise ParityError(f"{precision} does not run here: {'; '.join(engine.downgrades) or 'the bundle has none'}")
    return list(
        score_patients(cohort.folder, cohort.patients, engine, bundle.manifest, "balanced", available_processors())
    )
