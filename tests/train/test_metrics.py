"""Metrics of predictions with known quality."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from train.core.metrics import GREY_ZONE_COUNT, auc_interval, summary

LABELS = np.array([0, 1] * 40)


def noisy(strength: float, seed: int = 0) -> np.ndarray:
    return 1 / (1 + np.exp(-np.random.default_rng(seed).normal(strength * (2 * LABELS - 1), 1)))


def test_interval_contains_the_auc() -> None:
    for strength in (0.0, 0.5, 1.0):
        low, high = auc_interval(LABELS, noisy(strength), seed=0)
        assert 0 <= low < roc_auc_score(LABELS, noisy(strength)) < high <= 1
        assert 0.05 < high - low < 0.35


def test_interval_is_as_wide_as_theory_says() -> None:
    """Hanley & McNeil 1982: standard error of an AUC of .5 with 40 patients in each class."""
    error = np.sqrt((0.25 + 2 * 39 * (1 / 3 - 0.25)) / 1600)
    low, high = auc_interval(LABELS, noisy(0.0, seed=2), seed=0)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_interval_repeats_and_is_stratified() -> None:
    # Most unstratified resamples of 21 patients would miss or duplicate the malignant one.
    few = np.array([1] + [0] * 20)
    assert auc_interval(few, np.linspace(1, 0, 21), seed=0) == (1, 1)
    assert auc_interval(LABELS, noisy(1), seed=3) == auc_interval(LABELS, noisy(1), seed=3)


def test_perfect_and_chance() -> None:
    count = np.full(80, 5.0)
    perfect = summary(LABELS, np.where(LABELS == 1, 0.9, 0.1), count)
    assert {perfect[name] for name in ("balanced_accuracy", "auc", "auc_low", "auc_high", "grey_zone_auc")} == {1.0}
    chance = summary(LABELS, noisy(0), count)
    assert chance["auc"] == pytest.approx(0.5, abs=0.15)
    assert chance["auc_low"] < 0.5 < chance["auc_high"]


def test_balanced_accuracy_at_one_half() -> None:
    labels, probability = np.array([1, 1, 1, 1, 0, 0]), np.array([0.5, 0.6, 0.9, 0.4, 0.49, 0.7])
    assert summary(labels, probability, np.full(6, 5.0))["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_grey_zone_is_the_patients_at_or_below_its_count() -> None:
    labels = np.array([1, 0, 1, 0, 1, 1])
    probability = np.array([0.9, 0.1, 0.2, 0.8, 0.95, 0.99])
    count = np.array([GREY_ZONE_COUNT, 5.0, 4.0, 7.0, 7.69, 100.0])
    figures = summary(labels, probability, count)
    assert figures["grey_zone_patients"] == 4
    assert figures["grey_zone_auc"] == pytest.approx(3 / 4)
    assert figures["auc"] == pytest.approx(7 / 8)


@pytest.mark.parametrize(
    ("count", "grey"), [([50.0] * 4, (0, 0)), ([5.0, 5.0, 50.0, 50.0], (2, 0)), ([5.0, 50.0, 5.0, 5.0], (3, 2))]
)
def test_a_grey_zone_of_one_class_has_no_auc(count: list[float], grey: tuple[int, int]) -> None:
    labels, probability = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.5, 0.9])
    figures = summary(labels, probability, np.array(count))
    assert figures["auc"] == pytest.approx(3 / 4)
    assert (figures["grey_zone_patients"], figures["grey_zone_malignant"]) == grey
    assert ("grey_zone_auc" in figures) == (grey == (3, 2))
    json.dumps(figures, allow_nan=False)  # metrics.json must be standard JSON
