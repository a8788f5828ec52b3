"""Platt calibration of one model's probabilities, fitted on patients the model was not trained on."""

import logging

import numpy as np
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from infer.bundle.manifest import Calibration
from train.core.arrays import Floats, Labels
from train.core.threads import on_one_thread

LOG = logging.getLogger("lympho")


SMALLEST_SLOPE = 1e-3
CLIP = 1e-6  # before calibration, probabilities are clipped to [CLIP, 1 - CLIP]


@on_one_thread
def fit_calibration(probability: Floats, labels: Labels) -> Calibration:
    """Fit Platt scaling, slightly regularised: a member that separates perfectly must not get an infinite slope.

    Args:
        probability: (P,) probabilities of malignant.
        labels: (P,) 1 malignant, 0 reactive.
    """
    scores = logit(np.clip(probability, CLIP, 1 - CLIP))[:, None]
    spread = float(scores.std()) or 1.0
    model = LogisticRegression(C=10.0).fit(scores / spread, labels)
    slope, intercept = float(model.coef_[0, 0]) / spread, float(model.intercept_[0])
    if slope < SMALLEST_SLOPE:  # no better than chance: make it nearly constant, never reverse its ranking
        LOG.warning("ensemble: a member ranks patients no better than chance; its influence is reduced to almost none")
        slope, intercept = SMALLEST_SLOPE, float(logit(labels.mean()) - SMALLEST_SLOPE * scores.mean())
    return Calibration(slope=slope, intercept=intercept, clip=CLIP)
