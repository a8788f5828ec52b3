"""Calibration, weights and thresholds of an outer fold, fitted on inner out-of-fold predictions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from infer.scoring.ensemble import calibrated
from train.core.arrays import Floats, Indices
from train.core.calibration import fit_calibration
from train.core.threads import on_one_thread
from train.ensemble.fit import (
    PULLS,
    best_threshold,
    choose_pull,
    combine,
    decide_all,
    fit_ensemble,
    sensitivity_threshold,
)
from train.members.gating import choose_gate

PERCENTS = (95, 98)  # sensitivities at which patients are referred to flow cytometry


SHIPPED = "ensemble"  # built as in a bundle


def without(member: str) -> str:
    """Name of the shipped ensemble without a member."""
    return f"{SHIPPED} without {member}"


@dataclass(frozen=True)
class Stack:
    """An ensemble: its members' names, and the regularisation strengths from which the inner folds choose."""

    members: tuple[str, ...]
    pulls: tuple[float, ...] = PULLS  # regularisation strengths


@dataclass(frozen=True)
class Judged:
    """Probabilities and decisions for the held-out patients of an outer fold; each array is (H,)."""

    probability: Floats
    called: npt.NDArray[np.bool_]  # called malignant


@dataclass(frozen=True)
class Scored(Judged):
    """All results for the held-out patients of an outer fold; each array is (H,)."""

    sent_on: dict[int, npt.NDArray[np.bool_]]  # referred to flow cytometry, for each of PERCENTS
    decisions: dict[str, npt.NDArray[np.object_]]  # by operating point; only for ensembles
    chosen: dict[str, object]  # what the inner folds selected
    blind: Mapping[str, Judged] = field(
        default_factory=dict
    )  # by pictures that are not theirs (train/data/whose_pictures.py)


Blind = Mapping[str, Floats]  # probabilities of the held-out patients by swapped pictures, and by blank ones
NO_PICTURES: Blind = {}


@on_one_thread
def score_member(inner: Floats, labels: Indices, held_out: Floats, blind: Blind = NO_PICTURES) -> Scored:
    """Calibrate one model and choose its thresholds.

    Args:
        inner: (T,) inner out-of-fold probabilities of the training patients.
        labels: (T,) their labels.
        held_out: (H,) probabilities of the held-out patients.
        blind: the same by swapped and by blank pictures, if the model sees pictures.
    """
    calibration = fit_calibration(inner, labels)
    smooth, probability = calibrated(inner, calibration), calibrated(held_out, calibration)
    threshold = best_threshold(smooth, labels)
    sent_on = _sent_on(smooth, labels, probability)
    others = _judged(blind, lambda values: calibrated(values, calibration), threshold)
    return Scored(probability, probability >= threshold, sent_on, {}, {"threshold": threshold}, others)


@on_one_thread
def score_ensemble(
    stack: Stack, inner: Floats, labels: Indices, folds: Indices, held_out: Floats, blind: Blind = NO_PICTURES
) -> Scored:
    """Fit an ensemble, choose the regularisation strength of its weights, and decide.

    Args:
        stack: ensemble of M members.
        inner: (M, T) inner out-of-fold probabilities.
        labels: (T,) labels of the training patients.
        folds: (T,) inner fold of each training patient.
        held_out: (M, H) probabilities of the held-out patients.
        blind: the same by swapped and by blank pictures, (M, H) each.
    """
    pull, loss = choose_pull(inner, labels, folds, stack.members, stack.pulls)
    ensemble = fit_ensemble(inner, labels, stack.members, pull)
    probability = combine(held_out, ensemble)
    mixed = combine(inner, ensemble)
    threshold = best_threshold(mixed, labels)
    chosen = {
        "pull": pull,
        "threshold": threshold,
        "weights": dict(ensemble.weights),
        "disagreement": ensemble.disagreement,
        "inner_log_loss": loss,
    }
    others = _judged(blind, lambda values: combine(values, ensemble), threshold)
    sent_on = _sent_on(mixed, labels, probability)
    decisions = decide_all(held_out, ensemble)
    return Scored(probability, probability >= threshold, sent_on, decisions, chosen, others)


@on_one_thread
def score_gated(
    inner: Floats,
    clinical: Floats,
    labels: Indices,
    folds: Indices,
    held_out: Floats,
    held_out_clinical: Floats,
    blind: Blind = NO_PICTURES,
) -> Scored:
    """Fit a gate over two models, choose its regularisation strength, and decide.

    Thresholds are chosen on probabilities from gates fitted on the other inner folds: a gate's six weights overfit the
    patients they were fitted on.

    Args:
        inner: (2, T) inner out-of-fold probabilities.
        clinical: (T, 3) features of order one.
        labels: (T,) labels of the training patients.
        folds: (T,) inner fold of each training patient.
        held_out: (2, H) probabilities of the held-out patients.
        held_out_clinical: (H, 3) their clinical features.
        blind: probabilities by swapped and by blank pictures, (2, H) each.
    """
    found = choose_gate(inner, clinical, labels, folds)
    probability = found.gate.mixed(held_out, held_out_clinical)
    threshold = best_threshold(found.crossed, labels)
    chosen = {
        "pull": found.pull,
        "threshold": threshold,
        "gate": found.gate.weights.tolist(),
        "inner_log_loss": found.log_loss,
    }
    others = _judged(blind, lambda values: found.gate.mixed(values, held_out_clinical), threshold)
    return Scored(
        probability, probability >= threshold, _sent_on(found.crossed, labels, probability), {}, chosen, others
    )


def _judged(blind: Blind, judge: Callable[[Floats], Floats], threshold: float) -> dict[str, Judged]:
    probabilities = {pictures: judge(values) for pictures, values in blind.items()}
    return {pictures: Judged(values, values >= threshold) for pictures, values in probabilities.items()}


def _sent_on(inner: Floats, labels: Indices, held_out: Floats) -> dict[int, npt.NDArray[np.bool_]]:
    """Patients at or above the threshold that has each sensitivity of PERCENTS on the inner folds: percent -> (H,)."""
    return {percent: held_out >= sensitivity_threshold(inner, labels, percent / 100) for percent in PERCENTS}


def choose_ensemble(ensembles: Mapping[str, Scored]) -> Scored:
    """The ensemble with the lowest inner log loss; its name is recorded in `chosen`."""
    name = min(ensembles, key=lambda one: float(str(ensembles[one].chosen["inner_log_loss"])))
    return replace(ensembles[name], chosen={"ensemble": name, **ensembles[name].chosen})
