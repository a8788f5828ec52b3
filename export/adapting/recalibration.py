"""Logistic recalibration of a bundle's log odds to other patients (Cox 1958; Steyerberg et al. 2004), with a pull.

How much is fitted depends on how many patients there are: the prevalence alone, the intercept too, or the slope as
well. Few patients could ask for absurd values, so a prior pulls towards the bundle as it is at their prevalence. Its
widths were chosen on drawn cohorts, on no patients.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from infer.bundle.manifest import Calibration
from infer.scoring.ensemble import calibrated, calibrated_logit
from infer.scoring.prevalence import AS_IT_IS, log_odds_of
from train.core.arrays import Floats, Labels
from train.core.threads import on_one_thread

FEWEST, FEWEST_OF_A_CLASS = 30, 10  # patients for more than the prevalence
FEWEST_FOR_SLOPE = 20  # of each class
PREVALENCE, INTERCEPT, SLOPE = "prevalence", "prevalence, intercept", "prevalence, intercept, slope"
WIDTH_INTERCEPT = 1.5  # standard deviation of the prior, in log odds at the patients' mean
WIDTH_SLOPE = 1.0  # of the logarithm of the slope: a third or three times is not unusual, a tenth or ten times is


@dataclass(frozen=True)
class Recalibration:
    """Log odds -> slope * log odds + intercept, and what of it was fitted."""

    fitted: str
    slope: float
    intercept: float

    @property
    def calibration(self) -> Calibration:
        """As a bundle holds it."""
        return Calibration(self.slope, self.intercept)

    def of(self, probability: Floats) -> Floats:
        """The new probabilities, of any shape."""
        return calibrated(probability, self.calibration)


def what_can_be_fitted(labels: Labels) -> str:
    """PREVALENCE, INTERCEPT or SLOPE: what so many patients of each class (P,) allow."""
    fewer = int(np.bincount(labels, minlength=2).min())
    if len(labels) < FEWEST or fewer < FEWEST_OF_A_CLASS:
        return PREVALENCE
    return INTERCEPT if fewer < FEWEST_FOR_SLOPE else SLOPE


@on_one_thread
def recalibrate(probability: Floats, labels: Labels, prevalence: float, what: str) -> Recalibration:
    """Fit a recalibration.

    Args:
        probability: (P,) by the bundle.
        labels: (P,) 1 malignant, 0 reactive, both there.
        prevalence: share of malignant patients for which the bundle's probabilities hold.
        what: PREVALENCE, INTERCEPT or SLOPE.
    """
    shift = log_odds_of(float(labels.mean())) - log_odds_of(prevalence)
    if what == PREVALENCE:
        return Recalibration(what, 1.0, shift)
    odds = log_odds(probability)
    centre = float(odds.mean())
    sign = np.where(labels == 1, 1.0, -1.0)

    def cost(asked: Floats) -> float:
        height, steepness = asked[0], asked[1] if what == SLOPE else 0.0
        fitted = height + np.exp(steepness) * (odds - centre)
        loss = np.logaddexp(0.0, -sign * fitted).sum()
        pull = ((height - centre - shift) / WIDTH_INTERCEPT) ** 2 + (steepness / WIDTH_SLOPE) ** 2
        return float(loss + pull / 2)

    found = minimize(cost, np.array([centre + shift, 0.0]), method="BFGS").x
    slope = float(np.exp(found[1])) if what == SLOPE else 1.0
    return Recalibration(what, slope, float(found[0]) - slope * centre)


def log_odds(probability: Floats) -> Floats:
    """Log odds, as scoring takes them: probabilities are clipped before."""
    return calibrated_logit(probability, AS_IT_IS)
