"""From the members' probabilities to one probability and a decision, by the numbers in the manifest."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from infer.manifest import Calibration, Ensemble, OperatingPoint

Floats = npt.NDArray[np.float64]


def calibrated(probability: Floats, calibration: Calibration) -> Floats:
    """Platt's smooth map from a member's raw probability to a calibrated one, any shape."""
    kept = np.clip(np.asarray(probability, dtype=np.float64), calibration.clip, 1 - calibration.clip)
    scores = np.log(kept / (1 - kept))
    return np.asarray(1.0 / (1.0 + np.exp(-(calibration.slope * scores + calibration.intercept))))


def weighted(members: Mapping[str, Floats], ensemble: Ensemble) -> Floats:
    """Weighted mean of the members' calibrated probabilities, any shape."""
    return np.asarray(sum(weight * members[name] for name, weight in ensemble.weights.items()))


def decide(probability: float, point: OperatingPoint) -> str:
    """`malignant` from refer_high on, `reactive` below refer_low, `refer` between: it should not decide alone."""
    if probability >= point.refer_high:
        return "malignant"
    return "reactive" if probability < point.refer_low else "refer"
