"""Logistic regression on patient features.

`fit_fixed`, of the ImageNet member: with fixed hyperparameters. `fit_logistic`, of the leads: with hyperparameters
chosen by cross-validation on the training patients.
"""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from train.core.arrays import Floats, Indices
from train.core.threads import on_one_thread

COMPONENTS = (10, 30)  # candidate numbers of principal components
STRENGTHS = (0.03, 0.3, 3.0)  # candidate values of scikit-learn's C
CHOOSING_FOLDS = 3
FIXED_COMPONENTS, FIXED_STRENGTH = 30, 0.03
CLASS_WEIGHTS = "balanced"  # malignant and reactive patients weigh alike together
SMALLEST_SPREAD = 1e-4  # of a component, as a share of the largest
ROUNDING = 1e-6  # of all features: patients that differ by less have the same pictures


class _FittingPCA(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Standardised principal components: as many as requested, or fewer if the training patients do not allow that."""

    def __init__(self, components: int = 10) -> None:
        self.components = components

    def fit(self, features: Floats, labels: Indices | None = None) -> "_FittingPCA":
        del labels
        number = min(self.components, *features.shape)
        self.steps_ = Pipeline([("pca", PCA(number, svd_solver="full")), ("scale", StandardScaler())]).fit(features)
        return self

    def transform(self, features: Floats) -> Floats:
        return np.asarray(self.steps_.transform(features))


@on_one_thread
def fit_logistic(features: Floats, labels: Indices, reduced: int) -> GridSearchCV:
    """Fit on standardised features (P, F), with PCA on the last `reduced` of them.

    Hyperparameters are those with the lowest log loss in cross-validation with CHOOSING_FOLDS folds.
    """
    kept = features.shape[1] - reduced
    parts: list[tuple[str, object, slice]] = [("plain", StandardScaler(), slice(0, kept))] if kept else []
    grid: dict[str, tuple[float, ...]] = {"logistic__C": STRENGTHS}
    if reduced:
        parts.append(("reduced", _FittingPCA(), slice(kept, None)))
        grid["features__reduced__components"] = COMPONENTS
    pipeline = Pipeline([("features", ColumnTransformer(parts)), ("logistic", LogisticRegression(max_iter=1000))])
    folds = StratifiedKFold(CHOOSING_FOLDS, shuffle=True, random_state=0)
    return GridSearchCV(pipeline, grid, scoring="neg_log_loss", cv=folds).fit(features, labels)


def fixed_numbers() -> dict[str, object]:
    """Every number of `fit_fixed`."""
    return {
        "components": FIXED_COMPONENTS,
        "strength": FIXED_STRENGTH,
        "smallest_spread": SMALLEST_SPREAD,
        "class_weights": CLASS_WEIGHTS,
        "standardised": "clinical values",
    }


@on_one_thread
def fit_fixed(features: Floats, labels: Indices, reduced: int) -> Pipeline:
    """Fit on standardised clinical features and on whitened principal components of picture features.

    Picture features are not standardised first. Some of the network's are almost always 0: standardised, they get
    weights of 100 and more, and move the logit far where another stain makes them fire or float16 rounds them.
    FIXED_STRENGTH is scikit-learn's C.

    Args:
        features: (P, F) clinical features, then picture features.
        labels: (P,) 1 malignant, 0 reactive.
        reduced: how many of the F are picture features.
    """
    kept = features.shape[1] - reduced
    parts: list[tuple[str, object, slice]] = [("plain", StandardScaler(), slice(0, kept))] if kept else []
    if reduced:
        # Only directions in which patients differ: whitening would blow rounding errors up to the size of the others.
        spread = np.linalg.svd(features[:, kept:] - features[:, kept:].mean(axis=0), compute_uv=False)
        components = min(FIXED_COMPONENTS, max(1, int((spread > SMALLEST_SPREAD * spread[0]).sum())))
        whitened = PCA(components, whiten=True, svd_solver="full")
        differ = bool(spread[0] > ROUNDING * np.linalg.norm(features[:, kept:]))  # else there is nothing to whiten
        parts.append(("reduced", whitened if differ else StandardScaler(), slice(kept, None)))
    logistic = LogisticRegression(C=FIXED_STRENGTH, class_weight=CLASS_WEIGHTS, max_iter=1000)
    return Pipeline([("features", ColumnTransformer(parts)), ("logistic", logistic)]).fit(features, labels)


def plain_logistic() -> Pipeline:
    """Logistic regression on standardised features, not yet fitted: of the evaluation's clinical logistic."""
    return make_pipeline(StandardScaler(), LogisticRegression())


def affine(model: GridSearchCV | Pipeline, number: int) -> tuple[Floats, float]:
    """Weights (F,) and intercept of a fitted model's logit; this works because all of its steps are affine."""
    constant = float(model.decision_function(np.zeros((1, number)))[0])
    return np.asarray(model.decision_function(np.eye(number))) - constant, constant
