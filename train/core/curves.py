"""Training and validation metrics per epoch, computed per patient, as in the report's figures 7 to 10."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from train.core.arrays import Floats, Indices

Network = TypeVar("Network", bound=nn.Module)

MALIGNANT_WEIGHT = 2.0  # class weight in the loss: a missed malignancy costs double (report, section 3.2)


class Curves(Generic[Network]):
    """Collects the probabilities from training batches, and scores the validation patients after each epoch."""

    def __init__(self, labels: Indices, held_out: Indices, score: Callable[[Network, Indices], Floats]) -> None:
        """Start recording a training.

        Args:
            labels: (P,) labels of all patients.
            held_out: indices of the validation patients.
            score: network, patient indices -> probability of malignant for each of these patients.
        """
        self._labels, self._held_out, self._score = labels, held_out, score
        self._sums, self._counts = np.zeros(len(labels)), np.zeros(len(labels))

    def record(self, patients: Indices, probability: Tensor) -> None:
        """Record probabilities from a training batch; they are averaged per patient.

        Args:
            patients: (N,) patient index of each probability.
            probability: (N,) probability of malignant.
        """
        np.add.at(self._sums, patients, probability.detach().double().cpu().numpy())
        np.add.at(self._counts, patients, 1)

    def observe(self, network: Network, epoch: int) -> dict[str, float]:
        """Metrics of the finished epoch. Training metrics were collected while the weights were changing."""
        seen = np.flatnonzero(self._counts)
        training = decision_rates(self._labels[seen], self._sums[seen] / self._counts[seen])
        validation = decision_rates(self._labels[self._held_out], self._score(network, self._held_out))
        self._sums[:], self._counts[:] = 0, 0
        return {f"training_{name}": value for name, value in training.items()} | {
            f"validation_{name}": value for name, value in validation.items()
        }


def held_out_by(labels: Indices, training: Indices) -> Indices:
    """The patients that are not among the training patients; none if they are of one class, which has no rates.

    Args:
        labels: (P,) labels of all patients.
        training: indices of the training patients.
    """
    rest = np.setdiff1d(np.arange(len(labels)), training)
    return rest if len(np.unique(labels[rest])) == 2 else rest[:0]


def decision_rates(labels: Indices, probability: Floats) -> dict[str, float]:
    """Loss, balanced accuracy, true-negative and true-positive rate at threshold 0.5.

    Args:
        labels: (P,) 1 malignant, 0 reactive.
        probability: (P,) probability of malignant.
    """
    malignant = labels == 1
    called = probability >= 0.5
    negative = float(np.mean(~called[~malignant]))
    positive = float(np.mean(called[malignant]))
    weights = np.where(malignant, MALIGNANT_WEIGHT, 1.0)
    likelihood = np.clip(np.where(malignant, probability, 1 - probability), 1e-7, None)
    return {
        "loss": float(-(weights * np.log(likelihood)).sum() / weights.sum()),
        "balanced_accuracy": (negative + positive) / 2,
        "true_negative_rate": negative,
        "true_positive_rate": positive,
    }
