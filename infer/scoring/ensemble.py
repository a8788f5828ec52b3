"""From the members' probabilities to one probability and a decision, by the numbers in the manifest."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from infer.bundle.manifest import Calibration, Ensemble, OperatingPoint

Floats = npt.NDArray[np.float64]


def calibrated(probability: Floats, calibration: Calibration) -> Floats:
    """Platt's smooth map from a member's raw probability to a calibrated one, any shape."""
    return np.asarray(1.0 / (1.0 + np.exp(-calibrated_logit(probability, calibration))))


def calibrated_logit(probability: Floats, calibration: Calibration) -> Floats:
    """The calibrated probability's logit, finite however sure the member is, any shape."""
    kept = np.clip(np.asarray(probability, dtype=np.float64), calibration.clip, 1 - calibration.clip)
    return np.asarray(calibration.slope * np.log(kept / (1 - kept)) + calibration.intercept)


def weighted(members: Mapping[str, Floats], ensemble: Ensemble) -> Floats:
    """Weighted mean of the members' calibrated probabilities, any shape."""
    return np.asarray(sum(weight * members[name] for name, weight in ensemble.weights.items()))


def decide(probability: float, point: OperatingPoint) -> str:
    """`malignant` from refer_high on, `reactive` below refer_low, `refer` between: it should not decide alone."""
    if probability >= point.refer_high:
        return "malignant"
    return "reactive" if probability < point.refer_low else "refer"
