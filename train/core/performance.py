"""Performance metrics of probabilities and decisions, with bootstrap intervals over patients.

A resample is a row of patient weights: how often each patient was drawn. So one formula gives a metric and all its
resamples, and two models are compared on the same resamples. Metrics are named as in TRIPOD+AI and STARD.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from train.core.arrays import Booleans, Floats, Labels

RESAMPLES = 2000
LARGEST = 40.0  # a calibration slope or intercept beyond this is taken as not converged
CLIP = 1e-6  # keeps the logit of a probability finite


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for some patients; each array is (P,)."""

    labels: Labels  # 1 malignant, 0 reactive
    probability: Floats  # of malignant
    called: Booleans  # called malignant, by a threshold fitted on other patients
    # Percent (95 or 98) -> referred to flow cytometry, by a threshold fitted on other patients to this sensitivity.
    sent_on: Mapping[int, Booleans] = field(default_factory=dict)

    def of(self, chosen: Booleans) -> "Predictions":
        """The predictions for a subset of the patients."""
        sent_on = {percent: sent[chosen] for percent, sent in self.sent_on.items()}
        return Predictions(self.labels[chosen], self.probability[chosen], self.called[chosen], sent_on)


Figure = Callable[[Predictions, Floats], Floats]  # weights (B, P) -> (B,)


def resamples(labels: Labels, seed: int, number: int | None = None, *, by_class: bool = True) -> Floats:
    """How often each patient is drawn in each bootstrap resample: (P,) -> (number, P).

    Args:
        number: number of resamples; default RESAMPLES.
        by_class: each resample has as many of each class. Without, as in a validation, the share of malignant patients
            is itself uncertain, and with it calibration and predictive values.
    """
    number = RESAMPLES if number is None else number
    rng = np.random.default_rng(seed)
    if not by_class:
        total = len(labels)
        return rng.multinomial(total, np.full(total, 1 / total), size=number).astype(np.float64)
    weights = np.zeros((number, len(labels)))
    for label in np.unique(labels):
        patients = np.flatnonzero(labels == label)
        weights[:, patients] = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=number)
    return weights


def sensitivity(of: Predictions, weights: Floats) -> Floats:
    """Share of malignant patients called malignant."""
    return share(weights, of.called, of.labels == 1)


def specificity(of: Predictions, weights: Floats) -> Floats:
    """Share of reactive patients called reactive."""
    return share(weights, ~of.called, of.labels == 0)


def balanced_accuracy(of: Predictions, weights: Floats) -> Floats:
    """Mean of sensitivity and specificity."""
    return (sensitivity(of, weights) + specificity(of, weights)) / 2


def positive_predictive_value(of: Predictions, weights: Floats) -> Floats:
    """Share of patients called malignant who are malignant; NaN if nobody is called malignant."""
    return share(weights, of.labels == 1, of.called)


def negative_predictive_value(of: Predictions, weights: Floats) -> Floats:
    """Share of patients called reactive who are reactive; NaN if nobody is called reactive."""
    return share(weights, of.labels == 0, ~of.called)


def auc(of: Predictions, weights: Floats) -> Floats:
    """Area under the ROC curve: chance that a malignant patient ranks above a reactive one; ties count half."""
    true, false = _roc(of, weights)
    width = np.diff(false, axis=1)
    return np.asarray((width * (true[:, 1:] + true[:, :-1]) / 2).sum(axis=1))


def average_precision(of: Predictions, weights: Floats) -> Floats:
    """Average precision, stepwise, as scikit-learn defines it."""
    found, all_above = _cumulated(of, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(all_above > 0, found / all_above, 0.0)
        recall = found / found[:, -1:]
    steps = np.diff(recall, axis=1, prepend=0.0)
    return np.asarray((steps * precision).sum(axis=1))


def brier_score(of: Predictions, weights: Floats) -> Floats:
    """Mean squared difference between probability and label."""
    return np.asarray(weights @ (of.probability - of.labels) ** 2 / weights.sum(axis=1))


def calibration_slope(of: Predictions, weights: Floats) -> Floats:
    """Slope of a logistic regression of label on logit(probability) (Cox 1958): 1 is ideal, below 1 overconfident."""
    return _with_both(of, weights, _recalibration(of, weights, free_slope=True)[1])


def calibration_intercept(of: Predictions, weights: Floats) -> Floats:
    """Calibration in the large: intercept of the same regression with slope 1; above 0, probabilities are too low."""
    return _with_both(of, weights, _recalibration(of, weights, free_slope=False)[0])


def when_sent_on(percent: int, figure: Figure) -> Figure:
    """A metric of the decision whom to refer to flow cytometry; NaN if there is no threshold for this percentage."""

    def of_sent(of: Predictions, weights: Floats) -> Floats:
        if percent not in of.sent_on:
            return np.full(len(weights), np.nan)
        return figure(replace(of, called=of.sent_on[percent]), weights)

    return of_sent


def avoided_per_100(of: Predictions, weights: Floats) -> Floats:
    """Flow cytometries avoided per 100 patients: all patients not called, including missed malignant ones."""
    return 100 * share(weights, ~of.called, np.ones(len(of.labels), dtype=bool))


def best_specificity(wanted: float) -> Figure:
    """Best specificity of any threshold with at least the wanted sensitivity; chosen on the same labels: optimistic."""

    def figure(of: Predictions, weights: Floats) -> Floats:
        true, false = _roc(of, weights)
        return _with_both(of, weights, np.where(true >= wanted - 1e-9, 1 - false, 0.0).max(axis=1))

    return figure


FIGURES: Mapping[str, Figure] = {
    "balanced_accuracy": balanced_accuracy,
    "auc": auc,
    "average_precision": average_precision,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "positive_predictive_value": positive_predictive_value,
    "negative_predictive_value": negative_predictive_value,
    "brier_score": brier_score,
    "calibration_slope": calibration_slope,
    "calibration_intercept": calibration_intercept,
    **{
        f"{name}_when_keeping_{percent}": when_sent_on(percent, figure)
        for percent in (95, 98)
        for name, figure in (
            ("sensitivity", sensitivity),
            ("specificity", specificity),
            ("avoided_per_100", avoided_per_100),
        )
    },
    "best_specificity_at_95_sensitivity": best_specificity(0.95),
    "best_specificity_at_98_sensitivity": best_specificity(0.98),
}


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95% interval, from percentiles of the bootstrap resamples."""

    value: float
    low: float
    high: float


def estimate(figure: Figure, repeats: Sequence[Predictions], weights: Floats) -> Estimate:
    """A metric averaged over repeats on the same patients, with a bootstrap interval.

    Resamples in which the metric is not finite are left out.

    Args:
        figure: the metric.
        repeats: predictions for the same patients, one per repeat.
        weights: (B, P) from `resamples`.
    """
    return _estimate(lambda drawn: _mean(figure, repeats, drawn), weights)


def paired_difference(
    figure: Figure, one: Sequence[Predictions], other: Sequence[Predictions], weights: Floats
) -> Estimate:
    """Difference of a metric between two models, each averaged over its repeats, from the same resamples.

    Args:
        figure: the metric.
        one: predictions of the first model, one per repeat.
        other: predictions of the second model, which is subtracted.
        weights: (B, P) from `resamples`.

    Raises:
        ValueError: the predictions are not for the same patients.
    """
    if any(not np.array_equal(one[0].labels, of.labels) for of in (*one, *other)):
        raise ValueError("paired differences need predictions for the same patients")
    return _estimate(lambda drawn: _mean(figure, one, drawn) - _mean(figure, other, drawn), weights)


def net_benefit(labels: Labels, probability: Floats, thresholds: Floats, weights: Floats | None = None) -> Floats:
    """Decision curve (Vickers & Elkin 2006): TP/n - FP/n x t/(1-t) if patients at or above threshold t are referred.

    Args:
        labels: (P,) 1 malignant, 0 reactive.
        probability: (P,) probability of malignant.
        thresholds: (T,) threshold probabilities.
        weights: (B, P) from `resamples`; None: each patient once.

    Returns:
        (T,) net benefit at each threshold; with weights (B, T).
    """
    each = np.ones(len(labels)) if weights is None else weights
    positive = probability[:, None] >= thresholds  # (P, T)
    total = each.sum(axis=-1, keepdims=True)
    true = each @ (positive & (labels == 1)[:, None]) / total
    false = each @ (positive & (labels == 0)[:, None]) / total
    return np.asarray(true - false * thresholds / (1 - thresholds))


def _mean(figure: Figure, repeats: Sequence[Predictions], weights: Floats) -> Floats:
    return np.asarray(np.mean([figure(of, weights) for of in repeats], axis=0))


def _estimate(figure: Callable[[Floats], Floats], weights: Floats) -> Estimate:
    value, resampled = figure(np.ones((1, weights.shape[1])))[0], figure(weights)
    finite = resampled[np.isfinite(resampled)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def share(weights: Floats, part: Booleans, whole: Booleans) -> Floats:
    """Weighted share of `part` within `whole`: (B, P), (P,), (P,) -> (B,); NaN where `whole` has no weight."""
    with np.errstate(invalid="ignore"):
        return np.asarray(weights @ (part & whole) / (weights @ whole))


def _with_both(of: Predictions, weights: Floats, values: Floats) -> Floats:
    """The values (B,), set to NaN where a resample lacks malignant or reactive patients."""
    return np.where((weights @ (of.labels == 1) > 0) & (weights @ (of.labels == 0) > 0), values, np.nan)


def _cumulated(of: Predictions, weights: Floats) -> tuple[Floats, Floats]:
    """Weight of malignant and of all patients at or above each distinct probability, highest first: (B, T), (B, T)."""
    order = np.argsort(-of.probability, kind="stable")
    last = np.append(np.diff(of.probability[order]) != 0, True)  # last patient of each group of equal probabilities
    drawn = weights[:, order]
    malignant = np.cumsum(drawn * (of.labels[order] == 1), axis=1)[:, last]
    return malignant, np.cumsum(drawn, axis=1)[:, last]


def _roc(of: Predictions, weights: Floats) -> tuple[Floats, Floats]:
    """True- and false-positive rates at each threshold, from nobody called to everybody called: (B, T + 1) each."""
    malignant, everybody = _cumulated(of, weights)
    reactive = everybody - malignant
    start = np.zeros((len(weights), 1))
    with np.errstate(invalid="ignore"):
        true, false = malignant / malignant[:, -1:], reactive / reactive[:, -1:]
    return np.hstack([start, true]), np.hstack([start, false])


def _recalibration(of: Predictions, weights: Floats, *, free_slope: bool, steps: int = 100) -> tuple[Floats, Floats]:
    """Intercept and slope of label ~ logit(probability), by damped Newton steps on all resamples at once: (B,), (B,).

    If the probabilities separate the classes the likelihood has no maximum; values beyond LARGEST become NaN.
    """
    clipped = np.clip(of.probability, CLIP, 1 - CLIP)
    score = np.log(clipped / (1 - clipped))  # (P,)
    intercept = np.zeros(len(weights))
    slope = np.zeros(len(weights)) if free_slope else np.ones(len(weights))
    for _ in range(steps):
        fitted = 1 / (1 + np.exp(-np.clip(intercept[:, None] + slope[:, None] * score, -50, 50)))  # (B, P)
        residual, curvature = weights * (of.labels - fitted), weights * fitted * (1 - fitted)
        first, second = residual.sum(1), residual @ score
        a, b, c = curvature.sum(1), curvature @ score, curvature @ score**2
        if free_slope:
            determinant = a * c - b**2 + 1e-12
            intercept = intercept + np.clip((c * first - b * second) / determinant, -1, 1)
            slope = slope + np.clip((a * second - b * first) / determinant, -1, 1)
        else:
            intercept = intercept + np.clip(first / (a + 1e-12), -1, 1)
    settled = (np.abs(intercept) < LARGEST) & (np.abs(slope) < LARGEST)
    return np.where(settled, intercept, np.nan), np.where(settled, slope, np.nan)
