"""A gate over two models: it learns how to weight them per patient, from predictions for patients they have not seen.

The report's gate is trained together with its experts, on patients whom the image expert memorises, so it learns to
trust that expert too much. This gate is fitted only on inner out-of-fold probabilities and clinical values.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import log_loss

from infer.bundle.manifest import Calibration
from infer.scoring.ensemble import calibrated_logit
from train.core.arrays import Floats, Indices
from train.core.calibration import fit_calibration
from train.core.threads import on_one_thread

# Candidate strengths of the regularisation of the gate towards one half, from almost none to one that dominates. They
# were fixed before any of them was tried.
GATE_PULLS = (0.01, 0.1, 1.0)
OPEN = 40.0  # the sigmoid of this is 1 in double precision


@dataclass(frozen=True)
class Gate:
    """p = g p_first + (1 - g) p_second; g is the sigmoid of a linear function of both logits and clinical values."""

    calibration: tuple[Calibration, Calibration]
    weights: Floats  # (6,) for constant, sex, log count, age, both logits

    def shares(self, experts: Floats, clinical: Floats) -> Floats:
        """The weight g of the first model for each patient: (2, P), (P, 3) -> (P,)."""
        return np.asarray(expit(_seen(_logits(experts, self.calibration), clinical) @ self.weights))

    def mixed(self, experts: Floats, clinical: Floats) -> Floats:
        """Each patient's probability: (2, P) models' probabilities, (P, 3) clinical features -> (P,)."""
        return _mixed(self.shares(experts, clinical), _logits(experts, self.calibration))


@on_one_thread
def fit_gate(experts: Floats, clinical: Floats, labels: Indices, pull: float) -> Gate:
    """Minimise log loss plus `pull` times the squared weights, starting from a gate of one half for everyone.

    Args:
        experts: (2, T) probabilities for patients that the models were not trained on.
        clinical: (T, 3) features of order one.
        labels: (T,) 1 malignant, 0 reactive.
        pull: strength of the regularisation.
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
    """A gate fitted on all given patients, with the regularisation strength that was best in cross-validation."""

    gate: Gate
    pull: float  # strength of the regularisation
    log_loss: float  # cross-validated
    crossed: Floats  # (T,) cross-validated probabilities


@on_one_thread
def choose_gate(experts: Floats, clinical: Floats, labels: Indices, folds: Indices) -> ChosenGate:
    """Fit a gate, choosing the regularisation strength from GATE_PULLS by cross-validation.

    Args:
        experts: (2, T) probabilities for patients that the models were not trained on.
        clinical: (T, 3) features of order one.
        labels: (T,) 1 malignant, 0 reactive.
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


@on_one_thread
def no_gate(experts: Floats, labels: Indices, folds: Indices) -> ChosenGate:
    """The first model alone, calibrated, as a gate that is always open; its log loss compares with `choose_gate`'s.

    Args:
        experts: (2, T) probabilities for patients that the models were not trained on.
        labels: (T,) 1 malignant, 0 reactive.
        folds: (T,) inner fold of each patient.
    """
    crossed = np.empty(len(labels))
    for fold in np.unique(folds):
        rest, held_out = folds != fold, folds == fold
        crossed[held_out] = expit(
            calibrated_logit(experts[0, held_out], fit_calibration(experts[0, rest], labels[rest]))
        )
    calibration = (fit_calibration(experts[0], labels), fit_calibration(experts[1], labels))
    gate = Gate(calibration, np.array([OPEN, 0.0, 0.0, 0.0, 0.0, 0.0]))
    return ChosenGate(gate, 0.0, float(log_loss(labels, crossed)), crossed)


def _logits(experts: Floats, calibration: tuple[Calibration, Calibration]) -> Floats:
    """Logits of the calibrated probabilities: (2, P) -> (2, P)."""
    return np.stack([calibrated_logit(row, one) for row, one in zip(experts, calibration, strict=True)])


def _seen(logits: Floats, clinical: Floats) -> Floats:
    """The gate's inputs: (2, P), (P, 3) -> (P, 6)."""
    return np.concatenate([np.ones((len(clinical), 1)), clinical, logits.T], axis=1)


def _mixed(share: Floats, logits: Floats) -> Floats:
    first, second = expit(logits)
    return np.asarray(share * first + (1 - share) * second)
