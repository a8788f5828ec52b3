"""The figures of a validation, each with a 95% interval by bootstrap over patients.

The ensemble is compared with models of sex, age and count alone that are fitted on these very patients, by repeated
cross-validation: what a laboratory could have without a picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from infer.bundle.manifest import Manifest
from train.core.arrays import Booleans, Floats, Labels
from train.core.metrics import GREY_ZONE_COUNT
from train.core.performance import (
    FIGURES,
    Estimate,
    Predictions,
    estimate,
    net_benefit,
    paired_difference,
    resamples,
)
from train.core.threads import on_one_thread
from train.data.centres import centre_groups
from train.evaluation.validation.intervals import at_the_ends, wilson
from train.evaluation.validation.points import decided
from train.evaluation.validation.scored import Scored
from train.members.linear import plain_logistic

ENSEMBLE, CLINICAL, COUNT = "ensemble", "sex, age and count, fitted here", "count alone, fitted here"
BLIND = "ensemble, by other patients' pictures"
RANKING = ("auc", "average_precision", "brier_score")
CALIBRATION = ("calibration_slope", "calibration_intercept")
CALLS = (
    "balanced_accuracy", "sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value"
)  # fmt: skip
FOLDS, REPEATS = 5, 5
FEWEST_OF_A_CLASS = 5  # for cross-validation, and for a subgroup's figures
WANTED = 0.05  # half an interval, to plan a larger validation
BINS = 5  # of the calibration curve
THRESHOLDS = np.linspace(0.01, 0.99, 99)  # of the decision curve
LOW, HIGH = f"{ENSEMBLE}, low", f"{ENSEMBLE}, high"  # columns of the decision curve
GAIN = "ensemble less sex, age and count"


@dataclass(frozen=True)
class Figures:
    """All tables."""

    performance: pd.DataFrame  # model, group, patients, malignant, figure, value, low, high
    differences: pd.DataFrame  # against, group, figure, value, low, high: the ensemble's less the other's, paired
    points: pd.DataFrame  # operating_point, figure, value, low, high
    calibration: pd.DataFrame  # patients, predicted, malignant, low, high
    decision_curve: pd.DataFrame  # threshold, ensemble, everybody, nobody, ...
    needed: dict[str, int]  # figure -> patients for an interval of +- 5 points


def figures_of(
    scored: Scored,
    manifest: Manifest,
    seed: int = 0,
    prevalences: Sequence[float] = (),
    swapped: Floats | None = None,
) -> Figures:
    """Everything that is said of a bundle on these patients.

    Args:
        prevalences: shares of malignant patients at which predictive values are given, beside the share here.
        swapped: (P,) probabilities by other patients' pictures, if they were scored so, too.
    """
    weights = resamples(scored.labels, seed, by_class=False)
    models = {ENSEMBLE: [_called(scored.labels, scored.probability, manifest)], **_fitted_here(scored, seed)}
    if swapped is not None:
        models[BLIND] = [_called(scored.labels, swapped, manifest)]
    performance = _performance(models, groups(scored), scored.labels, weights)
    return Figures(
        performance,
        _differences(models, groups(scored), weights),
        decided(scored, manifest.ensemble.operating_points, weights, prevalences),
        calibration_curve(scored.labels, scored.probability),
        decision_curve(models, weights),
        _needed(performance, len(scored.labels)),
    )


def groups(scored: Scored) -> dict[str, Booleans]:
    """The patients of each subgroup, all of them first: name -> (P,)."""
    sex, count, age = scored.clinical.T
    return {
        "all": np.ones(len(scored.labels), np.bool_),
        f"grey zone: count up to {GREY_ZONE_COUNT}": count <= GREY_ZONE_COUNT,
        f"count above {GREY_ZONE_COUNT}": count > GREY_ZONE_COUNT,
        "women": sex == 1,
        "men": sex == 0,
        "age below 60": age < 60,
        "age 60 to 75": (age >= 60) & (age < 75),
        "age 75 and above": age >= 75,
        "like the training patients": ~scored.held_up,
        "unlike the training patients": scored.held_up,
        **{f"centre {name}": of for name, of in centre_groups(scored.centres).items()},
    }


def _called(labels: Labels, probability: Floats, manifest: Manifest) -> Predictions:
    """Called malignant from the balanced operating point's upper threshold on."""
    return Predictions(labels, probability, probability >= manifest.ensemble.operating_points["balanced"].refer_high)


@on_one_thread
def _fitted_here(scored: Scored, seed: int) -> dict[str, list[Predictions]]:
    """Logistic regression on these patients, by repeated cross-validation; none if a class has too few patients."""
    if np.bincount(scored.labels, minlength=2).min() < FEWEST_OF_A_CLASS:
        return {}
    sex, count, age = scored.clinical.T
    columns = {CLINICAL: np.stack([sex, np.log(count), age], axis=1), COUNT: np.log(count)[:, None]}
    found: dict[str, list[Predictions]] = {name: [] for name in columns}
    for repeat in range(REPEATS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed + repeat)
        for name, features in columns.items():
            probability = np.empty(len(features))
            for known, asked in folds.split(features, scored.labels):
                model = plain_logistic().fit(features[known], scored.labels[known])
                probability[asked] = model.predict_proba(features[asked])[:, 1]
            found[name].append(Predictions(scored.labels, probability, probability >= 0.5))
    return found


def _performance(
    models: Mapping[str, Sequence[Predictions]], chosen: Mapping[str, Booleans], labels: Labels, weights: Floats
) -> pd.DataFrame:
    rows = []
    for group, some in chosen.items():
        facts = {"group": group, "patients": int(some.sum()), "malignant": int(labels[some].sum())}
        if not some.any():
            continue
        for model, repeats in models.items():
            of = [one.of(some) for one in repeats]
            for name in _figures_for(model, group) if group == "all" or _enough(labels[some]) else ():
                found = at_the_ends(estimate(FIGURES[name], of, weights[:, some]), _whole(name, of[0]))
                if np.isfinite(found.value):
                    rows.append({"model": model, **facts, "figure": name, **_cells(found)})
    return pd.DataFrame(rows)


def _whole(figure: str, of: Predictions) -> int:
    """Of how many patients a figure is the share; 0: it is no share."""
    wholes = {
        "sensitivity": of.labels == 1,
        "specificity": of.labels == 0,
        "positive_predictive_value": of.called,
        "negative_predictive_value": ~of.called,
    }
    return int(wholes[figure].sum()) if figure in wholes else 0


def _figures_for(model: str, group: str) -> tuple[str, ...]:
    """Calibration, which takes long to compute, of the ensemble over all patients alone."""
    if group != "all":
        return ("auc", *CALLS)
    return (*RANKING, *CALLS, *(CALIBRATION if model == ENSEMBLE else ()))


def _differences(
    models: Mapping[str, Sequence[Predictions]], chosen: Mapping[str, Booleans], weights: Floats
) -> pd.DataFrame:
    rows = []
    for group, some in list(chosen.items())[:2]:
        for against in (name for name in models if name != ENSEMBLE and _enough(models[name][0].labels[some])):
            mine, theirs = ([one.of(some) for one in models[name]] for name in (ENSEMBLE, against))
            for name in ("auc", "balanced_accuracy", "brier_score"):
                found = paired_difference(FIGURES[name], mine, theirs, weights[:, some])
                rows.append({"against": against, "group": group, "figure": name, **_cells(found)})
    return pd.DataFrame(rows, columns=["against", "group", "figure", "value", "low", "high"])


def calibration_curve(labels: Labels, probability: Floats) -> pd.DataFrame:
    """Patients in bins of equal number by probability: mean probability, share malignant, and Wilson's interval."""
    rows = []
    for some in np.array_split(np.argsort(probability, kind="stable"), BINS):
        if len(some):
            share = float(labels[some].mean())
            low, high = wilson(share, len(some))
            mean = float(probability[some].mean())
            rows.append({"patients": len(some), "predicted": mean, "malignant": share, "low": low, "high": high})
    return pd.DataFrame(rows)


def decision_curve(models: Mapping[str, Sequence[Predictions]], weights: Floats | None = None) -> pd.DataFrame:
    """Net benefit by threshold, of each model (its repeats averaged), of sending everybody on, and nobody.

    Args:
        models: predictions by name, among them ENSEMBLE's.
        weights: (B, P) from `resamples`; then there are columns with the ensemble's 95% interval, and with what it
            gains over sex, age and count alone, paired, with its own.
    """
    labels = models[ENSEMBLE][0].labels
    columns = {"threshold": THRESHOLDS, "everybody": net_benefit(labels, np.ones(len(labels)), THRESHOLDS)}
    columns["nobody"] = np.zeros(len(THRESHOLDS))
    for name, repeats in models.items():
        columns[name] = _benefit(labels, repeats)
    if weights is not None:
        drawn = _benefit(labels, models[ENSEMBLE], weights)  # (B, T)
        columns |= dict(zip((LOW, HIGH), _interval(drawn), strict=True))
        if CLINICAL in models:
            gains = drawn - _benefit(labels, models[CLINICAL], weights)
            columns[GAIN] = columns[ENSEMBLE] - columns[CLINICAL]
            columns |= dict(zip((f"{GAIN}, low", f"{GAIN}, high"), _interval(gains), strict=True))
    return pd.DataFrame(columns)


def _benefit(labels: Labels, repeats: Sequence[Predictions], weights: Floats | None = None) -> Floats:
    return np.asarray(np.mean([net_benefit(labels, one.probability, THRESHOLDS, weights) for one in repeats], axis=0))


def _interval(drawn: Floats) -> Floats:
    """95% by percentiles: (B, T) -> (2, T)."""
    return np.asarray(np.percentile(drawn, [2.5, 97.5], axis=0))


def _needed(performance: pd.DataFrame, patients: int) -> dict[str, int]:
    """Patients for an interval of +- 5 points, with the same mix of classes: its width falls with the square root."""
    needed = {}
    for row in performance.to_dict("records"):
        if (
            row["model"] == ENSEMBLE
            and row["group"] == "all"
            and row["figure"] in ("auc", "sensitivity", "specificity")
        ):
            half = (float(row["high"]) - float(row["low"])) / 2
            needed[str(row["figure"])] = max(ceil(patients * (half / WANTED) ** 2), 1)
    return needed


def _enough(labels: Labels) -> bool:
    return bool(np.bincount(labels, minlength=2).min() >= FEWEST_OF_A_CLASS)


def _cells(found: Estimate) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}
