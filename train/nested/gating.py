"""A gate over two models: whose word counts more for whom, learnt from what they say of patients they have not seen.

The report's gate is trained together with its experts, on patients whom the image expert comes to know by heart; so it
learns to trust that expert too much. This one is fitted on inner out-of-fold probabilities and clinical values alone.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import log_loss

from infer.ensemble import calibrated
from infer.manifest import Calibration
from train.ensemble import fit_calibration
from train.nested.plan import Floats, Indices

GATE_PULLS = (0.01, 0.1, 1.0)  # strengths of the gate's pull towards one half for everybody, to choose of
CLIP = 1e-6  # keeps the logit of a probability finite


@dataclass(frozen=True)
class Gate:
    """p = g p_first + (1 - g) p_second; g = sigmoid of a weighted sum of both logits and the clinical values."""

    calibration: tuple[Calibration, Calibration]
    weights: Floats  # (6,) of 1, sex, log count, age, both logits

    def shares(self, experts: Floats, clinical: Floats) -> Floats:
        """The first model's share in each patient's mixture: (2, P), (P, 3) -> (P,)."""
        return np.asarray(expit(_seen(self._smooth(experts), clinical) @ self.weights))

    def mixed(self, experts: Floats, clinical: Floats) -> Floats:
        """Each patient's probability: (2, P) of the models, (P, 3) clinical features -> (P,)."""
        return _mixed(self.shares(experts, clinical), self._smooth(experts))

    def _smooth(self, experts: Floats) -> Floats:
        return np.stack([calibrated(row, one) for row, one in zip(experts, self.calibration, strict=True)])


def fit_gate(experts: Floats, clinical: Floats, labels: Indices, pull: float) -> Gate:
    """Least log loss, the squared weights costing `pull`.

    Args:
        experts: (2, T) probabilities of patients that the models were not trained on.
        clinical: (T, 3) features of the size of one.
        labels: (T,).
    """
    first, second = (fit_calibration(row, labels) for row in experts)
    smooth = np.stack([calibrated(experts[0], first), calibrated(experts[1], second)])
    seen = _seen(smooth, clinical)

    def cost(weights: Floats) -> float:
        mixed = _mixed(expit(seen @ weights), smooth)
        likelihood = np.where(labels == 1, mixed, 1 - mixed)
        return float(-np.mean(np.log(np.clip(likelihood, 1e-12, None))) + pull * weights @ weights)

    return Gate((first, second), np.asarray(minimize(cost, np.zeros(6), method="BFGS").x))


def choose_gate(experts: Floats, clinical: Floats, labels: Indices, folds: Indices) -> tuple[float, float]:
    """The pull with the least log loss over the inner folds, each scored by a gate of the others; and that loss."""

    def loss(pull: float) -> float:
        crossed = np.empty(len(labels))
        for fold in np.unique(folds):
            rest = folds != fold
            gate = fit_gate(experts[:, rest], clinical[rest], labels[rest], pull)
            crossed[~rest] = gate.mixed(experts[:, ~rest], clinical[~rest])
        return float(log_loss(labels, crossed))

    least, pull = min((loss(pull), pull) for pull in GATE_PULLS)
    return pull, least


def _seen(smooth: Floats, clinical: Floats) -> Floats:
    logits = logit(np.clip(smooth, CLIP, 1 - CLIP)).T  # (P, 2)
    return np.concatenate([np.ones((len(clinical), 1)), clinical, logits], axis=1)


def _mixed(share: Floats, smooth: Floats) -> Floats:
    return np.asarray(share * smooth[0] + (1 - share) * smooth[1])
