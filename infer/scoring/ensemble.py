"""From the members' probabilities to one probability and a decision, with the parameters in the manifest."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from infer.bundle.manifest import Calibration, Ensemble, OperatingPoint

Floats = npt.NDArray[np.float64]
SMALLEST_SAY = 0.05  # weight of a member that has a say in whether a patient is decided
REFER = "refer"  # the decision that leaves a patient to other tests


def calibrated(probability: Floats, calibration: Calibration) -> Floats:
    """Platt scaling of a member's raw probability, any shape."""
    return _sigmoid(calibrated_logit(probability, calibration))


def calibrated_logit(probability: Floats, calibration: Calibration) -> Floats:
    """The logit of the calibrated probability, any shape; finite even for raw probabilities of 0 and 1."""
    kept = np.clip(np.asarray(probability, dtype=np.float64), calibration.clip, 1 - calibration.clip)
    return np.asarray(calibration.slope * np.log(kept / (1 - kept)) + calibration.intercept)


def weighted(members: Mapping[str, Floats], ensemble: Ensemble) -> Floats:
    """Weighted mean of the members' calibrated probabilities, any shape."""
    return np.asarray(sum(weight * members[name] for name, weight in ensemble.weights.items()))


def recalibrated(probability: Floats, ensemble: Ensemble) -> Floats:
    """A weighted mean, or a member's calibrated probability, where the bundle's probabilities hold; any shape."""
    return calibrated(probability, ensemble.recalibration) if ensemble.recalibration else probability


def log_odds(members: Mapping[str, Floats], ensemble: Ensemble) -> Floats:
    """The log odds of malignancy of the members' weighted mean, before any recalibration; any shape.

    From the sums of both sides, because 1 - p would lose the digits of a probability near 1.

    Args:
        members: the members' calibrated logits, all of the same shape.
    """
    malignant, reactive = (
        weighted({name: _sigmoid(sign * logit) for name, logit in members.items()}, ensemble) for sign in (1, -1)
    )
    return np.asarray(np.log(malignant) - np.log(reactive))


def _sigmoid(logit: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def with_a_say(ensemble: Ensemble) -> tuple[str, ...]:
    """The members that have a say in the probability, and so in whether to trust it.

    One that is worth nothing says about the same of everybody, and so disagrees with the others on whomever they are
    sure of. It must not be able to hold those up.
    """
    return tuple(name for name, weight in ensemble.weights.items() if weight >= SMALLEST_SAY)


def disagreement(members: Mapping[str, Floats], ensemble: Ensemble) -> Floats:
    """Largest minus smallest probability of the members with a say, any shape; 0 if there is only one.

    Args:
        members: the calibrated probabilities of all members, of the same shape.
    """
    values = np.stack([members[name] for name in with_a_say(ensemble)])
    return np.asarray(values.max(axis=0) - values.min(axis=0))


def disagree(apart: float, ensemble: Ensemble) -> bool:
    """Whether a patient's members disagree too much for anybody to be decided by them.

    Args:
        apart: `disagreement` of the members' calibrated probabilities before any recalibration. The bound was fitted on
            these, so neither another prevalence nor an adaptation changes who is referred for it.
    """
    return ensemble.disagreement is not None and apart > ensemble.disagreement


def decide_patient(probability: float, apart: float, ensemble: Ensemble, point: str) -> str:
    """The decision on a patient like the training patients: `refer` if the members disagree, else by the probability.

    Args:
        probability: of the ensemble, recalibrated if the bundle is.
        apart: as for `disagree`.
        point: operating point, a key of the ensemble's.
    """
    return REFER if disagree(apart, ensemble) else decide(probability, ensemble.operating_points[point])


def decide(probability: float, point: OperatingPoint) -> str:
    """By the probability alone: `malignant` from refer_high on, `reactive` below refer_low, `refer` in between."""
    if probability >= point.refer_high:
        return "malignant"
    return "reactive" if probability < point.refer_low else REFER
