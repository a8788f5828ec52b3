"""Logistic regression on a patient's features, its numbers chosen by cross-validation on whatever it is fitted on."""

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from train.core.threads import on_one_thread

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

COMPONENTS = (10, 30)  # of PCA, to choose of
STRENGTHS = (0.03, 0.3, 3.0)  # scikit-learn's C, to choose of
CHOOSING_FOLDS = 3


class _FittingPCA(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Standardised principal components, as many as asked for or as the training patients allow."""

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
    """Fit on standardised features (P, F), the last `reduced` of them through PCA; least log loss of CHOOSING_FOLDS."""
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
    """The weights (F,) and the constant of a fitted model's logit: all of its steps are affine."""
    constant = float(model.decision_function(np.zeros((1, number)))[0])
    return np.asarray(model.decision_function(np.eye(number))) - constant, constant
