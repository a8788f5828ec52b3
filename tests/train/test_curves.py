"""Metrics per epoch compared with values computed by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from train.core.curves import Curves, decision_rates, held_out_by


def test_rates_and_loss_by_hand() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0])
    probability = np.array([0.9, 0.5, 0.4, 0.8, 0.2, 0.7])
    rates = decision_rates(labels, probability)
    assert rates["true_positive_rate"] == 0.75
    assert rates["true_negative_rate"] == 0.5
    assert rates["balanced_accuracy"] == 0.625
    likelihoods = [0.9, 0.5, 0.4, 0.8, 0.8, 0.3]
    weights = [2, 2, 2, 2, 1, 1]
    by_hand = -sum(w * math.log(p) for w, p in zip(weights, likelihoods, strict=True)) / 10
    assert rates["loss"] == pytest.approx(by_hand)
    logits = torch.from_numpy(np.log(np.stack([1 - probability, probability], axis=1)))
    reference = functional.cross_entropy(logits, torch.from_numpy(labels), torch.tensor([1.0, 2.0]).double())
    assert rates["loss"] == pytest.approx(reference.item())


def test_a_probability_of_zero_stays_finite() -> None:
    assert math.isfinite(decision_rates(np.array([1, 0]), np.array([0.0, 1.0]))["loss"])


def test_training_is_averaged_by_patient_and_forgotten_after_the_epoch() -> None:
    labels = np.array([1, 0, 1, 0])
    scored = np.array([0.9, 0.1])
    curves: Curves[nn.Module] = Curves(labels, np.array([2, 3]), lambda network, of: scored)
    curves.record(np.array([0, 0, 1]), torch.tensor([0.9, 0.3, 0.6]))  # patient 0: 0.6 on average
    curves.record(np.array([1]), torch.tensor([0.2]))  # patient 1: 0.4
    figures = curves.observe(nn.Identity(), 0)
    assert figures["training_true_positive_rate"] == 1
    assert figures["training_true_negative_rate"] == 1
    assert figures["training_loss"] == pytest.approx(decision_rates(labels[:2], np.array([0.6, 0.4]))["loss"])
    assert figures["validation_balanced_accuracy"] == 1
    curves.record(np.array([0, 1]), torch.tensor([0.1, 0.9]))
    forgotten = curves.observe(nn.Identity(), 1)
    assert forgotten["training_loss"] == pytest.approx(decision_rates(labels[:2], np.array([0.1, 0.9]))["loss"])


@pytest.mark.parametrize(
    ("training", "expected"),
    [([0, 1, 2], [3, 4]), ([0, 1, 3], []), ([0, 1, 2, 3, 4], [])],  # two classes left, one class, nobody
)
def test_who_is_held_out(training: list[int], expected: list[int]) -> None:
    found = held_out_by(np.array([1, 0, 1, 0, 1]), np.array(training))
    assert found.tolist() == expected
