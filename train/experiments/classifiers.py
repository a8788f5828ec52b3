"""Compares scikit-learn's classifiers on the 21 features per patient, as in figure 6 of the report."""

import inspect
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils import all_estimators
from threadpoolctl import threadpool_limits

from train.core.files import write_table
from train.members.naive_bayes import protocol_features, protocol_smoothing, report_folds
from train.members.recipes import BayesRecipe

SCORES_FILE, LEFT_OUT_FILE = "classifiers.csv", "classifiers_left_out.csv"
SCORES_COLUMNS = ["classifier", "fold", "balanced_accuracy", "note", "protocol"]
LEFT_OUT_COLUMNS = ["classifier", "kind", "reason"]
TEXT_LENGTH = 160  # maximum length of a warning's or exception's text in a table

# Classifiers whose constructor arguments do not show that they are unsuitable.
NOT_SUITABLE = {
    "CategoricalNB": "needs categorical features: it would truncate the scaled features to 0 and 1 without an error",
    "SelfTrainingClassifier": "wraps another classifier, for partly unlabelled patients",
}

Fold = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]  # features, training, held-out


@dataclass(frozen=True)
class Comparison:
    """Every scikit-learn classifier is in one of the two tables."""

    scores: pd.DataFrame  # SCORES_COLUMNS, one row per classifier and fold
    left_out: pd.DataFrame  # LEFT_OUT_COLUMNS, one row per classifier; kind is "not suitable" or "failed"


def compare_classifiers(
    base: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], protocol: str, recipe: BayesRecipe, seed: int
) -> Comparison:
    """Balanced accuracy of every suitable scikit-learn classifier on the report's 5 folds (report, figure 6).

    All use scikit-learn's defaults, except for GaussianNB's smoothing, which is that of `evaluate_naive_bayes`, so that
    both give the same results. A classifier that raises in any fold has no scores: it is left out as "failed", with the
    exception's text. Warnings become notes.

    Args:
        base: (P, 20) from `patient_features`, in the order of the annotation file.
        labels: (P,) 1 malignant, 0 reactive.
        protocol: `report` (quantiles and scaling over all patients, optimistic) or `honest`.
        recipe: hyperparameters of naive Bayes.
        seed: random_state of the classifiers that have one.
    """
    folds = [
        (protocol_features(base, training, protocol), training, held_out) for training, held_out in report_folds(labels)
    ]
    settings = {"random_state": seed, "var_smoothing": protocol_smoothing(protocol, recipe)}
    scores: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    with threadpool_limits(limits=1):  # multi-threaded sums would differ from run to run
        for name, kind in all_estimators(type_filter="classifier"):
            reason = _why_not_suitable(name, kind)
            if reason is not None:
                left_out.append({"classifier": name, "kind": "not suitable", "reason": reason})
                continue
            try:
                rows = [_score(kind, settings, fold, labels) for fold in folds]
            except Exception as error:  # noqa: BLE001 - a classifier may raise anything; it is recorded by name
                left_out.append({"classifier": name, "kind": "failed", "reason": _in_short(type(error), error)})
                continue
            scores += [{"classifier": name, "fold": fold, **row} for fold, row in enumerate(rows)]
    return Comparison(
        pd.DataFrame(scores, columns=SCORES_COLUMNS[:-1]).assign(protocol=protocol),
        pd.DataFrame(left_out, columns=LEFT_OUT_COLUMNS),
    )


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write both tables into the folder of the naive Bayes with the same features."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / LEFT_OUT_FILE, comparison.left_out)
    write_table(folder / SCORES_FILE, comparison.scores)


def _why_not_suitable(name: str, kind: type[ClassifierMixin]) -> str | None:
    """Why this cannot be used as a two-class classifier on such features by itself, or None."""
    if name in NOT_SUITABLE:
        return NOT_SUITABLE[name]
    parameters = inspect.signature(kind).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    if not needed:
        return None
    several = kind.__module__ == "sklearn.multioutput"
    return f"{'predicts several labels at once, and ' if several else ''}wraps other classifiers: needs {needed[0]}"


def _score(
    kind: type[ClassifierMixin], settings: dict[str, Any], fold: Fold, labels: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Balanced accuracy on the held-out patients, and the warnings."""
    features, training, held_out = fold
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = kind()
        known = model.get_params(deep=False)
        model.set_params(**{key: value for key, value in settings.items() if key in known})
        model.fit(features[training], labels[training])
        accuracy = float(balanced_accuracy_score(labels[held_out], model.predict(features[held_out])))
    notes = dict.fromkeys(_in_short(one.category, one.message) for one in caught)  # without duplicates, in order
    return {"balanced_accuracy": accuracy, "note": "; ".join(notes)}


def _in_short(kind: type[BaseException], message: object) -> str:
    """The type's name and one line of text."""
    return f"{kind.__name__}: {textwrap.shorten(str(message), TEXT_LENGTH, placeholder=' ...')}"
