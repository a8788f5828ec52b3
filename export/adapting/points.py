"""Operating points chosen on a hospital's patients, and what they keep of patients they were not chosen on.

A threshold that keeps a sensitivity is chosen so that a *new* malignant patient lies below it with no more than the
allowed chance (split conformal prediction, Vovk et al. 2005): with n malignant patients, at most k lie below, where
(k + 1) / (n + 1) is the allowed chance. Where n is too small for any k, nobody is called reactive.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold

from export.adapting.recalibration import recalibrate
from infer.bundle.manifest import OperatingPoint
from infer.scoring.ensemble import decide
from train.core.arrays import Floats, Labels
from train.ensemble.fit import best_threshold, refer_band

BALANCED = "balanced"
USUAL = {"sensitivity-95": 0.95, "sensitivity-98": 0.98}
FOLDS, REPEATS = 5, 5


def choose_points(probability: Floats, labels: Labels, sensitivities: Mapping[str, float]) -> dict[str, OperatingPoint]:
    """`balanced`, and a point for each wanted sensitivity.

    Args:
        probability: (P,) of malignant, recalibrated.
        labels: (P,) 1 malignant, 0 reactive, both there.
        sensitivities: name -> share of the malignant patients who must not be called reactive.
    """
    low, high = refer_band(probability, labels, best_threshold(probability, labels))
    points = {BALANCED: OperatingPoint(low, high)}
    for name, wanted in sensitivities.items():
        points[name] = OperatingPoint(min(keeping(probability, labels, wanted), low), high)
    return points


def keeping(probability: Floats, labels: Labels, sensitivity: float) -> float:
    """The highest threshold below which a new malignant patient lies with a chance of 1 - sensitivity at most.

    It lies midway between a malignant patient and the next lower one of either class: on the patient itself, a last
    digit would decide.

    Args:
        probability: (P,) of malignant.
        labels: (P,) 1 malignant, 0 reactive. With too few malignant ones the threshold is 0.
    """
    malignant = np.sort(probability[labels == 1])
    below = int(np.floor((1 - sensitivity) * (len(malignant) + 1) + 1e-9)) - 1
    if below < 0:
        return 0.0
    lower = probability[probability < malignant[below]]
    return float((malignant[below] + (lower.max() if len(lower) else 0.0)) / 2)


def malignant_needed(sensitivity: float) -> int:
    """The fewest malignant patients with whom a threshold above 0 can be promised."""
    return int(np.ceil(1 / (1 - sensitivity) - 1e-9)) - 1


@dataclass(frozen=True)
class CrossFitted:
    """What patients get who had no part in the fit, once a repeat."""

    probability: Floats  # (REPEATS, P)
    # Operating point -> (REPEATS, P); only those that four folds have enough malignant patients for.
    decisions: dict[str, npt.NDArray[np.str_]]


def cross_fit(
    probability: Floats, labels: Labels, prevalence: float, what: str, sensitivities: Mapping[str, float], seed: int
) -> CrossFitted:
    """Recalibrate and choose on four folds, decide the fifth; five times.

    Args:
        probability: (P,) by the bundle.
        labels: (P,) 1 malignant, 0 reactive, FOLDS of each at least.
        prevalence, what: as for `recalibrate`.
        sensitivities: as for `choose_points`.
        seed: random seed of the folds.
    """
    crossed = np.empty((REPEATS, len(labels)))
    malignant = int(labels.sum())
    fewest = malignant - -(-malignant // FOLDS)  # in four folds
    measured = {name: wanted for name, wanted in sensitivities.items() if malignant_needed(wanted) <= fewest}
    decisions = {name: np.empty((REPEATS, len(labels)), "<U9") for name in (BALANCED, *measured)}
    for repeat in range(REPEATS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed + repeat)
        for known, asked in folds.split(probability, labels):
            fitted = recalibrate(probability[known], labels[known], prevalence, what)
            crossed[repeat, asked] = fitted.of(probability[asked])
            points = choose_points(fitted.of(probability[known]), labels[known], measured)
            for name, point in points.items():
                decisions[name][repeat, asked] = [decide(float(one), point) for one in crossed[repeat, asked]]
    return CrossFitted(crossed, decisions)
