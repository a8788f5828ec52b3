"""Summary metrics: balanced accuracy, and AUC overall and in the grey zone, with bootstrap intervals over patients."""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from train.core.arrays import Floats, Labels
from train.core.performance import Predictions, auc, estimate, resamples

GREY_ZONE_COUNT = 7.68  # 10^9/L; in the public cohort every patient above it is malignant


def about_grey_zone(above: int, malignant_above: int) -> str:
    """What the grey zone is, and what it is worth in some patients: elsewhere its limit need not mean anything.

    Args:
        above: how many of them have a larger count.
        malignant_above: how many of these are malignant.
    """
    limit = (
        f"The grey zone is a count of {GREY_ZONE_COUNT} x 10^9/L or less. The program fixes this limit; it was derived "
        "from the labels of the patients that the program was developed on. "
    )
    if not above:
        return f"{limit}None of these patients lies above it: here the zone is everybody."
    if malignant_above == above:
        return f"{limit}All {above} of these patients above it are malignant."
    reactive = above - malignant_above
    return (
        f"{limit}Of these patients, {reactive} of {above} above it are reactive: here it is a subgroup like any other."
    )


def summary(labels: Labels, probability: Floats, count: npt.NDArray[np.floating], seed: int = 0) -> dict[str, float]:
    """Metrics of one set of predictions. The grey zone's AUC is omitted if the zone contains only one class.

    Args:
        labels: (P,) 1 malignant, 0 reactive.
        probability: (P,) probability of malignant.
        count: (P,) lymphocyte count in 10^9/L.
        seed: random seed of the bootstrap.
    """
    grey = count <= GREY_ZONE_COUNT
    low, high = auc_interval(labels, probability, seed=seed)
    figures = {
        "balanced_accuracy": float(balanced_accuracy_score(labels, probability >= 0.5)),
        "auc": float(roc_auc_score(labels, probability)),
        "auc_low": low,
        "auc_high": high,
        "grey_zone_patients": int(grey.sum()),
        "grey_zone_malignant": int(labels[grey].sum()),
    }
    if len(np.unique(labels[grey])) == 2:
        grey_low, grey_high = auc_interval(labels[grey], probability[grey], seed=seed)
        figures |= {
            "grey_zone_auc": float(roc_auc_score(labels[grey], probability[grey])),
            "grey_zone_auc_low": grey_low,
            "grey_zone_auc_high": grey_high,
        }
    return figures


def auc_interval(labels: Labels, probability: Floats, *, seed: int) -> tuple[float, float]:
    """95% interval of the AUC by bootstrap over patients, stratified by class so that no resample lacks a class."""
    found = estimate(
        auc, [Predictions(labels, probability.astype(np.float64), probability >= 0.5)], resamples(labels, seed)
    )
    return found.low, found.high
