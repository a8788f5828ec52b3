"""Platt's calibration of one model's probabilities, fitted on patients that it was not trained on."""

import logging

import numpy as np
import numpy.typing as npt
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from infer.bundle.manifest import Calibration
from train.core.threads import on_one_thread

LOG = logging.getLogger("lympho")

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

SMALLEST_SLOPE = 1e-3
CLIP = 1e-6  # probabilities are kept that far off 0 and 1 before they are calibrated


@on_one_thread
def fit_calibration(probability: Floats, labels: Labels) -> Calibration:
    """Platt's map, slightly regularised (a member that separates perfectly must not get an infinite slope)."""
    scores = logit(np.clip(probability, CLIP, 1 - CLIP))[:, None]
    spread = float(scores.std()) or 1.0
    model = LogisticRegression(C=10.0).fit(scores / spread, labels)
    slope, intercept = float(model.coef_[0, 0]) / spread, float(model.intercept_[0])
    if slope < SMALLEST_SLOPE:  # worse than chance: hold it nearly constant, never turn it round
        LOG.warning("ensemble: a member ranks patients no better than chance; it is kept almost without influence")
        slope, intercept = SMALLEST_SLOPE, float(logit(labels.mean()) - SMALLEST_SLOPE * scores.mean())
    return Calibration(slope=slope, intercept=intercept, clip=CLIP)
