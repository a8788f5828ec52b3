"""A gate over two models: whose word counts more for whom, learnt from what they say of patients they have not seen.

The report's gate is trained together with its experts, on patients whom the image expert comes to know by heart; so it
learns to trust that expert too much. This one is fitted on inner out-of-fold probabilities and clinical values alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import log_loss

from infer.bundle.manifest import Calibration
from infer.scoring.ensemble import calibrated_logit
from train.core.calibration import fit_calibration
from train.core.threads import on_one_thread

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Strengths of the pull of the share towards one half, to choose of: from hardly any to one that leaves little else,
# written down before any was tried here.
GATE_PULLS = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Gate:
    """p = g p_first + (1 - g) p_second; g = sigmoid of a weighted sum of both logits and the clinical values."""

    calibration: tuple[Calibration, Calibration]
    weights: Floats  # (6,) of 1, sex, log count, age, both logits

    def shares(self, experts: Floats, clinical: Floats) -> Floats:
        """The first model's share in each patient's mixture: (2, P), (P, 3) -> (P,)."""
        return np.asarray(expit(_seen(_logits(experts, self.calibration), clinical) @ self.weights))

    def mixed(self, experts: Floats, clinical: Floats) -> Floats:
        """Each patient's probability: (2, P) of the models, (P, 3) clinical features -> (P,)."""
        return _mixed(self.shares(experts, clinical), _logits(experts, self.calibration))


@on_one_thread
def fit_gate(experts: Floats, clinical: Floats, labels: Indices, pull: float) -> Gate:
    """Least log loss, the squared weights costing `pull`; the search begins at one half for everybody.

    Args:
        experts: (2, T) probabilities of patients that the models were not trained on.
        clinical: (T, 3) features of the size of one.
        labels: (T,).
    """
    calibration = (fit_calibration(experts[0], labels), fit_calibration(experts[1], labels))
    logits = _logits(experts, calibration)
    seen = _seen(logits, clinical)

    def cost(weights: Floats) -> float:
        mixed = _mixed(expit(seen @ weights), logits)
        likelihood = np.where(labels == 1, mixed, 1 - mixed)
        return float(-np.mean(np.log(np.clip(likelihood, 1e-12, None))) + pull * weights @ weights)

    return Gate(calibration, np.asarray(minimize(cost, np.zeros(6), method="BFGS").x))


@dataclass(frozen=True)
class ChosenGate:
    """A gate of all patients given, its pull the one that did best on inner folds that had not fitted it."""

    gate: Gate
    pull: float
    log_loss: float  # on those folds
    crossed: Floats  # (T,) probabilities there


@on_one_thread
def choose_gate(experts: Floats, clinical: Floats, labels: Indices, folds: Indices) -> ChosenGate:
    """Fit a gate, its pull chosen of GATE_PULLS.

    Args:
        experts: (2, T) probabilities of patients that the models were not trained on.
        clinical: (T, 3) features of the size of one.
        labels: (T,).
        folds: (T,) inner fold of each patient.
    """
    tried = []
    for pull in GATE_PULLS:
        crossed = np.empty(len(labels))
        for fold in np.unique(folds):
            rest, held_out = folds != fold, folds == fold
            gate = fit_gate(experts[:, rest], clinical[rest], labels[rest], pull)
            crossed[held_out] = gate.mixed(experts[:, held_out], clinical[held_out])
        tried.append((float(log_loss(labels, crossed)), pull, crossed))
    loss, pull, crossed = min(tried, key=lambda one: one[:2])
    return ChosenGate(fit_gate(experts, clinical, labels, pull), pull, loss, crossed)


def _logits(experts: Floats, calibration: tuple[Calibration, Calibration]) -> Floats:
    """Of the calibrated probabilities: (2, P) -> (2, P)."""
    return np.stack([calibrated_logit(row, one) for row, one in zip(experts, calibration, strict=True)])


def _seen(logits: Floats, clinical: Floats) -> Floats:
    """What the gate looks at: (2, P), (P, 3) -> (P, 6)."""
    return np.concatenate([np.ones((len(clinical), 1)), clinical, logits.T], axis=1)


def _mixed(share: Floats, logits: Floats) -> Floats:
    first, second = expit(logits)
    return np.asarray(share * first + (1 - share) * second)
