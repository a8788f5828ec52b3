"""Metrics compared with scikit-learn's with sample weights, known predictions, and bootstrap intervals."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from train.core.performance import (
    FIGURES,
    Predictions,
    average_precision,
    calibration_intercept,
    calibration_slope,
    estimate,
    net_benefit,
    paired_difference,
    resamples,
)


def drawn(number: int = 200, seed: int = 0, ties: bool = True) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = (rng.random(number) < 0.6).astype(np.int64)
    probability = np.clip(0.5 + 0.25 * (labels - 0.5) + rng.normal(0, 0.2, number), 0.01, 0.99)
    if ties:
        probability = probability.round(1).clip(0.01, 0.99)
    sent_on = {percent: probability >= threshold for percent, threshold in ((95, 0.35), (98, 0.25))}
    return Predictions(labels, probability, probability >= 0.55, sent_on)


def figures(of: Predictions, weights: np.ndarray | None = None) -> dict[str, float]:
    weights = np.ones((1, len(of.labels))) if weights is None else weights
    return {name: float(figure(of, weights)[0]) for name, figure in FIGURES.items()}


@pytest.mark.parametrize("ties", [True, False])
def test_every_figure_equals_scikit_learns_on_each_resample(ties: bool) -> None:
    of = drawn(ties=ties)
    for weights in resamples(of.labels, 3, 5):
        found = figures(of, weights[None])
        again = np.repeat(np.arange(len(weights)), weights.astype(int))  # the resampled patients
        labels, probability, called = of.labels[again], of.probability[again], of.called[again]
        assert found["auc"] == pytest.approx(roc_auc_score(labels, probability))
        assert found["average_precision"] == pytest.approx(average_precision_score(labels, probability))
        assert found["brier_score"] == pytest.approx(brier_score_loss(labels, probability))
        assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, called))
        assert found["sensitivity"] == pytest.approx(recall_score(labels, called))
        assert found["specificity"] == pytest.approx(recall_score(1 - labels, ~called))
        assert found["positive_predictive_value"] == pytest.approx(precision_score(labels, called))
        assert found["negative_predictive_value"] == pytest.approx(precision_score(1 - labels, ~called))
        false, true, _ = roc_curve(labels, probability, drop_intermediate=False)
        for percent in (95, 98):
            best = 1 - false[true >= percent / 100].min()
            assert found[f"best_specificity_at_{percent}_sensitivity"] == pytest.approx(best)
            sent = of.sent_on[percent][again]
            assert found[f"sensitivity_when_keeping_{percent}"] == pytest.approx(recall_score(labels, sent))
            assert found[f"specificity_when_keeping_{percent}"] == pytest.approx(recall_score(1 - labels, ~sent))
            assert found[f"avoided_per_100_when_keeping_{percent}"] == pytest.approx(100 * np.mean(~sent))
        score = np.log(probability / (1 - probability))[:, None]
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(score, labels)
        assert found["calibration_slope"] == pytest.approx(model.coef_[0, 0], rel=1e-4)


def test_perfect_predictions() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    found = figures(Predictions(labels, labels.astype(float), labels == 1, {95: labels == 1, 98: labels == 1}))
    ones = {name for name in FIGURES if not name.startswith(("brier", "calibration", "avoided"))}
    assert {name: found[name] for name in ones} == dict.fromkeys(ones, 1.0)
    assert found["brier_score"] == 0
    assert found["avoided_per_100_when_keeping_98"] == 40  # the two reactive of five
    assert found["calibration_intercept"] == pytest.approx(np.log(3 / 2) / 2, abs=1e-5)  # almost no weight


def test_useless_predictions() -> None:
    labels = np.repeat([0, 1], [30, 70])
    found = figures(Predictions(labels, np.full(100, 0.7), np.ones(100, dtype=bool)))
    assert found["auc"] == 0.5
    assert found["average_precision"] == pytest.approx(0.7)
    assert found["balanced_accuracy"] == 0.5
    assert found["brier_score"] == pytest.approx(0.21)
    assert found["calibration_intercept"] == pytest.approx(0, abs=1e-9)
    assert np.isnan(found["negative_predictive_value"])  # nobody is called reactive
    assert found["best_specificity_at_95_sensitivity"] == 0
    assert np.isnan(found["avoided_per_100_when_keeping_95"])  # no threshold was fitted


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, 0.0), (2.0, 0.0), (1.0, -0.7)])
def test_miscalibrated_predictions_are_seen_through(slope: float, intercept: float) -> None:
    """Labels drawn with logit = intercept + slope x predicted score."""
    rng = np.random.default_rng(1)
    score = rng.normal(0, 1.5, 200_000)
    labels = (rng.random(len(score)) < 1 / (1 + np.exp(-(intercept + slope * score)))).astype(np.int64)
    probability = 1 / (1 + np.exp(-score))
    of, weights = Predictions(labels, probability, probability > 0.5), np.ones((1, len(score)))
    assert calibration_slope(of, weights)[0] == pytest.approx(slope, abs=0.03)
    if slope == 1:
        assert calibration_intercept(of, weights)[0] == pytest.approx(intercept, abs=0.03)


@pytest.mark.parametrize(("probability", "share"), [(0.05, 0.3), (0.9, 0.5), (0.001, 0.1), (0.999, 0.9), (0.5, 0.99)])
def test_the_intercept_is_right_far_from_where_it_starts(probability: float, share: float) -> None:
    """All have the same probability: the intercept is logit(prevalence) minus the logit of that probability."""
    labels = np.repeat([1, 0], [round(1000 * share), round(1000 * (1 - share))])
    of = Predictions(labels, np.full(1000, probability), labels == 1)
    expected = np.log(share / (1 - share)) - np.log(probability / (1 - probability))
    assert calibration_intercept(of, np.ones((1, 1000)))[0] == pytest.approx(expected, abs=1e-6)


def test_a_slope_that_has_no_end_is_no_figure() -> None:
    labels = np.repeat([0, 1], 20)
    probability = np.where(labels == 1, 0.51, 0.49)
    assert np.isnan(calibration_slope(Predictions(labels, probability, labels == 1), np.ones((1, 40)))[0])


def test_resamples_keep_the_size_of_each_class() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    weights = resamples(labels, 0, 500)
    assert (weights[:, labels == 0].sum(1) == 2).all()
    assert (weights[:, labels == 1].sum(1) == 3).all()
    assert np.abs(weights.mean(0) - 1).max() < 0.1
    assert not np.array_equal(weights, resamples(labels, 1, 500))
    np.testing.assert_array_equal(weights, resamples(labels, 0, 500))


def test_an_interval_covers_as_often_as_it_says() -> None:
    """Sensitivity of a decision that is right with probability .8, for 60 malignant patients, 300 times."""
    rng, covered = np.random.default_rng(0), 0
    labels = np.repeat([0, 1], [20, 60])
    weights = resamples(labels, 0, 500)
    for _ in range(300):
        called = rng.random(80) < 0.8
        interval = estimate(FIGURES["sensitivity"], [Predictions(labels, called.astype(float), called)], weights)
        covered += interval.low <= 0.8 <= interval.high
    assert 0.89 < covered / 300 < 0.98


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    one = drawn(ties=False)
    probability = np.clip(one.probability + np.random.default_rng(2).normal(0, 0.01, 200), 0, 1)
    other = Predictions(one.labels, probability, probability >= 0.55)
    weights = resamples(one.labels, 0, 400)
    difference = paired_difference(FIGURES["auc"], [one], [other], weights)
    alone = estimate(FIGURES["auc"], [one], weights)
    assert difference.value == pytest.approx(alone.value - roc_auc_score(one.labels, probability))
    assert difference.high - difference.low < 0.3 * (alone.high - alone.low)
    assert paired_difference(FIGURES["auc"], [one], [one], weights).high == 0
    with pytest.raises(ValueError, match="same patients"):
        paired_difference(FIGURES["auc"], [one], [Predictions(1 - one.labels, probability, other.called)], weights)


def test_repeats_are_averaged_figure_by_figure() -> None:
    one, other = drawn(seed=0), drawn(seed=0)
    other = Predictions(one.labels, one.probability[::-1].copy(), one.called[::-1].copy())
    weights = resamples(one.labels, 0, 50)
    both, first, second = (estimate(FIGURES["auc"], of, weights) for of in ([one, other], [one], [other]))
    assert both.value == pytest.approx((first.value + second.value) / 2)
    assert paired_difference(FIGURES["auc"], [one, other], [one], weights).value == pytest.approx(
        (second.value - first.value) / 2
    )


def test_net_benefit_by_hand() -> None:
    labels, probability = np.array([1, 1, 0, 0]), np.array([0.9, 0.3, 0.6, 0.1])
    found = net_benefit(labels, probability, np.array([0.05, 0.5, 0.95]))
    assert found == pytest.approx([0.5 - 0.5 * 0.05 / 0.95, 0.25 - 0.25 * 1, 0])


def test_a_resample_without_a_decision_is_left_out() -> None:
    labels = np.array([0, 1])
    of = Predictions(labels, np.array([0.2, 0.4]), np.array([False, False]))
    found = estimate(FIGURES["positive_predictive_value"], [of], resamples(labels, 0, 10))
    assert np.isnan(found.value)
    assert np.isnan(found.low)
    assert average_precision(of, np.ones((1, 2)))[0] == 1
