"""Naive Bayes in which fewer lymphocytes never speak for malignant.

Counts of reactive patients lie close together and those of malignant ones far apart. So a Gaussian for each has the
odds of malignant rise again below the middle of the reactive patients' counts, for no reason but the curve's form. A
count below the one with the lowest odds is read as that one.
"""

import numpy as np
import numpy.typing as npt
from sklearn.naive_bayes import GaussianNB

from infer.members.features import COUNT

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def count_floor(mean: Floats, variance: Floats) -> float:
    """The count at which the odds of malignant are lowest; 0 where they rise from there or have no lowest point.

    Args:
        mean: (2,) of the count among reactive and malignant patients, in any unit that has its zero at none.
        variance: (2,) likewise.
    """
    reactive, malignant = 1 / variance
    if reactive <= malignant:
        return 0.0
    return max(float((mean[0] * reactive - mean[1] * malignant) / (reactive - malignant)), 0.0)


class FlooredBayes:
    """Gaussian naive Bayes on raw sex, count and age, the count floored."""

    def __init__(self, clinical: npt.NDArray[np.floating], labels: Indices) -> None:
        """Fit on (P, 3), (P,)."""
        self.plain = GaussianNB().fit(clinical, labels)
        self.floor = count_floor(self.plain.theta_[:, COUNT], self.plain.var_[:, COUNT])

    def predict(self, clinical: npt.NDArray[np.floating]) -> Floats:
        """Probability of malignant: (P, 3) -> (P,)."""
        values = np.array(clinical, dtype=np.float64)
        values[:, COUNT] = np.maximum(values[:, COUNT], self.floor)
        return np.asarray(self.plain.predict_proba(values)[:, 1])
