"""Performance of probabilities and decisions, with patient-bootstrap intervals; every figure from weights of patients.

A resample is a row of weights, how often each patient was drawn; so one formula gives a figure and all its resamples,
and two models are compared on the same ones. Names as in TRIPOD+AI and STARD.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

RESAMPLES = 2000
CLIP = 1e-6  # keeps the logit of a probability finite


@dataclass(frozen=True)
class Predictions:
    """What a model says of some patients; each (P,)."""

    labels: Labels  # 1 malignant
    probability: Floats  # of malignant
    called: Booleans  # malignant, by a threshold that was fitted on others

    def of(self, chosen: Booleans) -> "Predictions":
        """Of some of the patients."""
        return Predictions(self.labels[chosen], self.probability[chosen], self.called[chosen])


Figure = Callable[[Predictions, Floats], Floats]  # weights (B, P) -> (B,)


def resamples(labels: Labels, seed: int, number: int = RESAMPLES) -> Floats:
    """How often each patient is drawn in each bootstrap resample, within its class: (P,) -> (number, P)."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((number, len(labels)))
    for label in np.unique(labels):
        patients = np.flatnonzero(labels == label)
        weights[:, patients] = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=number)
    return weights


def sensitivity(of: Predictions, weights: Floats) -> Floats:
    """Share of the malignant that are called malignant."""
    return _share(weights, of.called, of.labels == 1)


def specificity(of: Predictions, weights: Floats) -> Floats:
    """Share of the reactive that are called reactive."""
    return _share(weights, ~of.called, of.labels == 0)


def balanced_accuracy(of: Predictions, weights: Floats) -> Floats:
    """Mean of sensitivity and specificity."""
    return (sensitivity(of, weights) + specificity(of, weights)) / 2


def positive_predictive_value(of: Predictions, weights: Floats) -> Floats:
    """Share of those called malignant that are; NaN where nobody is called so."""
    return _share(weights, of.labels == 1, of.called)


def negative_predictive_value(of: Predictions, weights: Floats) -> Floats:
    """Share of those called reactive that are; NaN where nobody is called so."""
    return _share(weights, of.labels == 0, ~of.called)


def auc(of: Predictions, weights: Floats) -> Floats:
    """Area under the ROC curve: the chance that a malignant patient ranks above a reactive one, ties half."""
    true, false = _roc(of, weights)
    width = np.diff(false, axis=1)
    return np.asarray((width * (true[:, 1:] + true[:, :-1]) / 2).sum(axis=1))


def average_precision(of: Predictions, weights: Floats) -> Floats:
    """Precision averaged over recall, in steps, as scikit-learn defines it."""
    found, all_above = _cumulated(of, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(all_above > 0, found / all_above, 0.0)
        recall = found / found[:, -1:]
    steps = np.diff(recall, axis=1, prepend=0.0)
    return np.asarray((steps * precision).sum(axis=1))


def brier_score(of: Predictions, weights: Floats) -> Floats:
    """Mean squared distance of probability and label."""
    return np.asarray(weights @ (of.probability - of.labels) ** 2 / weights.sum(axis=1))


def calibration_slope(of: Predictions, weights: Floats) -> Floats:
    """Of a logistic regression of label on logit(probability) (Cox 1958): 1 is right, below 1 too sure."""
    return _with_both(of, weights, _recalibration(of, weights, free_slope=True)[1])


def calibration_intercept(of: Predictions, weights: Floats) -> Floats:
    """Calibration in the large: that regression's intercept with slope 1; above 0 the probabilities are too low."""
    return _with_both(of, weights, _recalibration(of, weights, free_slope=False)[0])


def specificity_at(wanted: float) -> Figure:
    """The best specificity of any threshold whose sensitivity is at least the wanted one."""

    def figure(of: Predictions, weights: Floats) -> Floats:
        true, false = _roc(of, weights)
        return _with_both(of, weights, np.where(true >= wanted - 1e-9, 1 - false, 0.0).max(axis=1))

    return figure


def avoided_at(wanted: float) -> Figure:
    """Flow cytometries avoided per 100 patients at that threshold: all patients below it, the missed ones included."""

    def figure(of: Predictions, weights: Floats) -> Floats:
        true, false = _roc(of, weights)
        malignant = weights @ (of.labels == 1)
        reactive = weights @ (of.labels == 0)
        above = true * malignant[:, None] + false * reactive[:, None]
        least = np.where(true >= wanted - 1e-9, above, np.inf).min(axis=1)
        return _with_both(of, weights, 100 * (1 - least / (malignant + reactive)))

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
    "specificity_at_95_sensitivity": specificity_at(0.95),
    "specificity_at_98_sensitivity": specificity_at(0.98),
    "avoided_per_100_at_95_sensitivity": avoided_at(0.95),
    "avoided_per_100_at_98_sensitivity": avoided_at(0.98),
}


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval by percentiles of the resamples."""

    value: float
    low: float
    high: float


def estimate(figure: Figure, repeats: Sequence[Predictions], weights: Floats) -> Estimate:
    """A figure, averaged over repeats of the same patients, and its interval from resamples of them (B, P).

    Resamples in which the figure is not finite are left out.
    """
    return _estimate(lambda drawn: _mean(figure, repeats, drawn), weights)


def paired_difference(
    figure: Figure, one: Sequence[Predictions], other: Sequence[Predictions], weights: Floats
) -> Estimate:
    """One model's figure minus another's, each averaged over its repeats, its interval from the same resamples (B, P).

    Raises:
        ValueError: the two are not of the same patients.
    """
    if any(not np.array_equal(one[0].labels, of.labels) for of in (*one, *other)):
        raise ValueError("paired differences need predictions of the same patients")
    return _estimate(lambda drawn: _mean(figure, one, drawn) - _mean(figure, other, drawn), weights)


def net_benefit(labels: Labels, probability: Floats, thresholds: Floats) -> Floats:
    """Decision curve (Vickers & Elkin 2006): TP/n - FP/n x t/(1-t) of sending everybody at or above t on: (T,)."""
    positive = probability[None, :] >= thresholds[:, None]  # (T, P)
    true = (positive & (labels == 1)).mean(axis=1)
    false = (positive & (labels == 0)).mean(axis=1)
    return np.asarray(true - false * thresholds / (1 - thresholds))


def _mean(figure: Figure, repeats: Sequence[Predictions], weights: Floats) -> Floats:
    return np.asarray(np.mean([figure(of, weights) for of in repeats], axis=0))


def _estimate(figure: Callable[[Floats], Floats], weights: Floats) -> Estimate:
    value, resampled = figure(np.ones((1, weights.shape[1])))[0], figure(weights)
    finite = resampled[np.isfinite(resampled)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def _share(weights: Floats, part: Booleans, whole: Booleans) -> Floats:
    """Weight of the part within the whole: (B, P), (P,), (P,) -> (B,); NaN where the whole has none."""
    with np.errstate(invalid="ignore"):
        return np.asarray(weights @ (part & whole) / (weights @ whole))


def _with_both(of: Predictions, weights: Floats, values: Floats) -> Floats:
    """The values (B,), NaN where a resample lacks malignant or reactive patients."""
    return np.where((weights @ (of.labels == 1) > 0) & (weights @ (of.labels == 0) > 0), values, np.nan)


def _cumulated(of: Predictions, weights: Floats) -> tuple[Floats, Floats]:
    """Weight of the malignant, and of all, at or above each distinct probability, highest first: (B, T), (B, T)."""
    order = np.argsort(-of.probability, kind="stable")
    last = np.append(np.diff(of.probability[order]) != 0, True)  # of each run of equal probabilities
    drawn = weights[:, order]
    malignant = np.cumsum(drawn * (of.labels[order] == 1), axis=1)[:, last]
    return malignant, np.cumsum(drawn, axis=1)[:, last]


def _roc(of: Predictions, weights: Floats) -> tuple[Floats, Floats]:
    """True- and false-positive rates at each threshold, from nobody to everybody: (B, T + 1) each."""
    malignant, everybody = _cumulated(of, weights)
    reactive = everybody - malignant
    start = np.zeros((len(weights), 1))
    with np.errstate(invalid="ignore"):
        true, false = malignant / malignant[:, -1:], reactive / reactive[:, -1:]
    return np.hstack([start, true]), np.hstack([start, false])


def _recalibration(of: Predictions, weights: Floats, *, free_slope: bool, steps: int = 50) -> tuple[Floats, Floats]:
    """Intercept and slope of label ~ logit(probability), by Newton's method on all resamples at once: (B,), (B,).

    With separated classes the slope has no maximum; it is stopped at 1000.
    """
    clipped = np.clip(of.probability, CLIP, 1 - CLIP)
    score = np.log(clipped / (1 - clipped))  # (P,)
    intercept, slope = np.zeros(len(weights)), np.ones(len(weights))
    if free_slope:
        slope = np.zeros(len(weights))
    for _ in range(steps):
        fitted = 1 / (1 + np.exp(-np.clip(intercept[:, None] + slope[:, None] * score, -30, 30)))  # (B, P)
        residual, curvature = weights * (of.labels - fitted), weights * fitted * (1 - fitted)
        gradient = np.stack([residual.sum(1), residual @ score])  # (2, B)
        a, b, c = curvature.sum(1), curvature @ score, curvature @ score**2
        if free_slope:
            determinant = a * c - b**2 + 1e-12
            intercept = intercept + (c * gradient[0] - b * gradient[1]) / determinant
            slope = slope + (a * gradient[1] - b * gradient[0]) / determinant
        else:
            intercept = intercept + gradient[0] / (a + 1e-12)
        intercept, slope = np.clip(intercept, -1000, 1000), np.clip(slope, -1000, 1000)
    return intercept, slope
