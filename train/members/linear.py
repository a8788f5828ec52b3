"""Logistic regression on patient features; hyperparameters are chosen by cross-validation on the training patients."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from train.core.arrays import Floats, Indices
from train.core.threads import on_one_thread

COMPONENTS = (10, 30)  # candidate numbers of principal components
STRENGTHS = (0.03, 0.3, 3.0)  # candidate values of scikit-learn's C
CHOOSING_FOLDS = 3


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


def affine(model: GridSearchCV, number: int) -> tuple[Floats, float]:
    """Weights (F,) and intercept of a fitted model's logit; this works because all of its steps are affine."""
    constant = float(model.decision_function(np.zeros((1, number)))[0])
    return np.asarray(model.decision_function(np.eye(number))) - constant, constant
