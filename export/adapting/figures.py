"""How good a bundle is on a hospital's patients before and after it was adapted to them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.adapting.local import Local
from export.adapting.points import CrossFitted
from infer.bundle.manifest import OperatingPoint
from infer.scoring.ensemble import REFER, decide
from train.core.arrays import Booleans, Floats
from train.core.performance import FIGURES, Estimate, Figure, Predictions, estimate, resamples, share
from train.evaluation.validation.intervals import at_the_ends

CALIBRATION = {
    "auc": "AUC",
    "brier_score": "Brier score",
    "calibration_intercept": "calibration in the large (0 is ideal)",
    "calibration_slope": "calibration slope (1 is ideal)",
}
DECIDED = ("malignant called reactive", "reactive called reactive", "referred")
Decisions = npt.NDArray[np.str_]  # (repeats, P)


@dataclass(frozen=True)
class BeforeAndAfter:
    """A figure with its 95% intervals."""

    before: Estimate | None  # None: the operating point is new
    after: Estimate | None  # None: four folds have too few malignant patients for it


@dataclass(frozen=True)
class Effect:
    """All figures."""

    calibration: dict[str, BeforeAndAfter]  # by title
    points: dict[str, dict[str, BeforeAndAfter]]  # operating point -> DECIDED
    held_up: tuple[int, int]  # by their pictures, before and after


def effect(
    local: Local,
    points: Mapping[str, OperatingPoint],
    names: Iterable[str],
    crossed: CrossFitted,
    held_up: Booleans,
    seed: int,
) -> Effect:
    """The figures.

    Args:
        local: the patients, with the probabilities of before.
        points: the operating points of before.
        names: of the operating points of after.
        crossed: probabilities and decisions of after, of patients who had no part in the fit.
        held_up: (P,) unlike the others, after.
        seed: random seed of the bootstrap.
    """
    weights = resamples(local.labels, seed, by_class=False)
    before, after = local.probability[None], crossed.probability

    def after_of(name: str) -> Decisions | None:
        return np.where(held_up | local.disagree, REFER, crossed.decisions[name]) if name in crossed.decisions else None

    return Effect(
        {
            title: BeforeAndAfter(_of(FIGURES[name], local, before, weights), _of(FIGURES[name], local, after, weights))
            for name, title in CALIBRATION.items()
        },
        {name: _decided(local, _as_before(local, points.get(name)), after_of(name), weights) for name in names},
        (int(local.held_up.sum()), int(held_up.sum())),
    )


def _as_before(local: Local, point: OperatingPoint | None) -> Decisions | None:
    if point is None:
        return None
    decisions = np.array([[decide(float(one), point) for one in local.probability]])
    return np.where(local.held_up | local.disagree, REFER, decisions)


def _of(figure: Figure, local: Local, probability: Floats, weights: Floats) -> Estimate:
    return estimate(figure, [Predictions(local.labels, one, one >= 0.5) for one in probability], weights)


def _decided(
    local: Local, before: Decisions | None, after: Decisions | None, weights: Floats
) -> dict[str, BeforeAndAfter]:
    everybody = np.ones(len(local.labels), np.bool_)
    shares = {
        "malignant called reactive": ("reactive", local.labels == 1),
        "reactive called reactive": ("reactive", local.labels == 0),
        "referred": (REFER, everybody),
    }

    def decided(decisions: Decisions | None, decision: str, whole: Booleans) -> Estimate | None:
        return None if decisions is None else _share(local, decisions == decision, whole, weights)

    return {
        title: BeforeAndAfter(decided(before, decision, whole), decided(after, decision, whole))
        for title, (decision, whole) in shares.items()
    }


def _share(local: Local, part: npt.NDArray[np.bool_], whole: Booleans, weights: Floats) -> Estimate:
    """The share of `part`, (repeats, P), in `whole`, (P,): the mean over repeats."""

    def figure(of: Predictions, drawn: Floats) -> Floats:
        return share(drawn, of.called, whole)

    found = estimate(figure, [Predictions(local.labels, local.probability, one) for one in part], weights)
    return at_the_ends(found, int(whole.sum()))
