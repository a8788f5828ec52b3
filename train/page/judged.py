"""The figures of the page: the ensemble, its members, and sex, age and count alone, on the same patients and folds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from infer.bundle.manifest import OperatingPoint
from train.core.arrays import Floats, Labels
from train.core.performance import (
    FIGURES,
    Estimate,
    Predictions,
    auc,
    balanced_accuracy,
    estimate,
    paired_difference,
    resamples,
)
from train.page.finished_run import FinishedRun

CALIBRATION = ("calibration_slope", "calibration_intercept")


@dataclass(frozen=True)
class Confusion:
    """What an operating point decides: patients, reactive then malignant; each called reactive, referred, malignant."""

    name: str
    point: OperatingPoint
    patients: tuple[tuple[int, int, int], tuple[int, int, int]]


@dataclass(frozen=True)
class Judged:
    """All figures with intervals."""

    ensemble: Estimate  # AUC
    clinical_name: str  # the better one of the ways to use sex, age and count alone
    clinical: Mapping[str, Estimate]  # AUC of each way
    clinical_balanced: Mapping[str, float]  # balanced accuracy at .5
    gain: Estimate  # AUC of the ensemble less that of the better way, paired
    calibration: Mapping[str, Estimate]  # slope, intercept
    folds: tuple[tuple[int, int, int, Mapping[str, float]], ...]  # fold, patients, malignant, AUC by model
    confusion: tuple[Confusion, ...]


def judge(found: FinishedRun) -> Judged:
    """All figures of a run, intervals by bootstrap over patients, stratified by class."""
    labels = found.bags.labels
    weights = resamples(labels, seed=0)
    mine = [_predictions(labels, found.probability)]
    clinical = {name: [_predictions(labels, values)] for name, values in found.clinical.items()}
    aucs = {name: estimate(auc, of, weights) for name, of in clinical.items()}
    best = max(aucs, key=lambda name: aucs[name].value)
    return Judged(
        estimate(auc, mine, weights),
        best,
        aucs,
        {name: float(balanced_accuracy(of[0], np.ones((1, len(labels))))[0]) for name, of in clinical.items()},
        paired_difference(auc, mine, clinical[best], weights),
        {name: estimate(FIGURES[name], mine, weights) for name in CALIBRATION},
        tuple(_fold(found, int(fold)) for fold in np.unique(found.folds)),
        tuple(_confusion(found, name, point) for name, point in found.ensemble.operating_points.items()),
    )


def _predictions(labels: Labels, probability: Floats) -> Predictions:
    return Predictions(labels, probability, probability >= 0.5)


def _fold(found: FinishedRun, fold: int) -> tuple[int, int, int, Mapping[str, float]]:
    """AUCs within a fold; none if it has one class only."""
    some = found.folds == fold
    labels = found.bags.labels[some]
    aucs: dict[str, float] = {}
    if len(np.unique(labels)) == 2:
        for name, values in {
            "ensemble": found.probability,
            **{one.name: one.probability for one in found.members},
        }.items():
            aucs[name] = float(auc(_predictions(labels, values[some]), np.ones((1, len(labels))))[0])
    return fold, int(some.sum()), int(labels.sum()), aucs


def _confusion(found: FinishedRun, name: str, point: OperatingPoint) -> Confusion:
    """From the shares in metrics.json, whose thresholds were fitted without the patient's fold."""
    shares = found.metrics[f"operating point {name}"]
    rows = []
    for label, own in enumerate(("reactive", "malignant")):
        number = int((found.bags.labels == label).sum())
        reactive = round(shares[f"{own}_called_reactive"] * number)
        malignant = round(shares[f"{own}_called_malignant"] * number)
        rows.append((reactive, number - reactive - malignant, malignant))
    return Confusion(name, point, (rows[0], rows[1]))
