"""Naive Bayes in which a lower lymphocyte count never raises the odds of malignant.

Counts of reactive patients have a small variance, those of malignant patients a large one. With one Gaussian per class
the odds of malignant therefore rise again below the typical reactive count, purely because of the curves' shape. A
count below the one with the lowest odds is replaced by that count.
"""

import numpy as np
import numpy.typing as npt
from sklearn.naive_bayes import GaussianNB

from infer.members.features import COUNT
from train.core.arrays import Floats, Indices


def count_floor(mean: Floats, variance: Floats) -> float:
    """The count at which the odds of malignant are lowest; 0 if that is at 0 or below, or if there is no minimum.

    Args:
        mean: (2,) mean count of reactive and of malignant patients, in any unit in which 0 means no lymphocytes.
        variance: (2,) variances, likewise.
    """
    reactive, malignant = 1 / variance
    if reactive <= malignant:
        return 0.0
    return max(float((mean[0] * reactive - mean[1] * malignant) / (reactive - malignant)), 0.0)


def widened(model: GaussianNB, values: npt.NDArray[np.floating], features: int = 3) -> GaussianNB:
    """Give each class in which a value does not differ at all the variance of the value over both, in place.

    Few patients of a class may all have one sex. A patient of the other one would be of the other class for certain.

    Args:
        model: fitted on `values`.
        values: (P, F).
        features: the first of them are looked at.
    """
    alike = np.stack([model.var_[row] <= 1.001 * model.epsilon_ for row in range(len(model.classes_))])  # (2, F)
    alike[:, features:] = False
    both = np.where(np.ptp(values, axis=0) > 0, values.var(axis=0), model.epsilon_)
    model.var_ = np.where(alike, both, model.var_)
    model.var_[model.var_ == 0] = 1.0  # no value of anybody differs: any variance says as little
    return model


class FlooredBayes:
    """Gaussian naive Bayes on raw sex, count and age, with a floor on the count."""

    def __init__(self, clinical: npt.NDArray[np.floating], labels: Indices) -> None:
        """Fit on clinical values (P, 3) and labels (P,)."""
        self.plain = widened(GaussianNB().fit(clinical, labels), clinical)
        self.floor = count_floor(self.plain.theta_[:, COUNT], self.plain.var_[:, COUNT])

    def predict(self, clinical: npt.NDArray[np.floating]) -> Floats:
        """Probability of malignant: (P, 3) -> (P,)."""
        values = np.array(clinical, dtype=np.float64)
        values[:, COUNT] = np.maximum(values[:, COUNT], self.floor)
        return np.asarray(self.plain.predict_proba(values)[:, 1])
