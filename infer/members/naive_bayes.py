"""Gaussian naive Bayes in NumPy, from the numbers in the manifest: no pickle, no scikit-learn in the container."""

import numpy as np
import numpy.typing as npt

from infer.bundle.manifest import NaiveBayes
from infer.members.features import COUNT, with_outliers


def malignant_probability(base: npt.NDArray[np.float64], model: NaiveBayes) -> npt.NDArray[np.float64]:
    """Probability of malignant: (..., 20) features without the outlier count -> (...,).

    scikit-learn's GaussianNB.predict_proba on min-max scaled features, in the log domain; the count floored.
    """
    base = np.array(base)
    base[..., COUNT] = np.maximum(base[..., COUNT], model.count_floor)
    features = with_outliers(base, np.array(model.quantiles))  # (..., 21)
    scaled = (features - np.array(model.feature_low)) / np.array(model.feature_range)
    mean, variance = np.array(model.mean), np.array(model.variance)  # (2, 21)
    deviation = (scaled[..., None, :] - mean) ** 2 / variance  # (..., 2, 21)
    joint = np.log(model.prior) - 0.5 * np.sum(np.log(2.0 * np.pi * variance) + deviation, axis=-1)  # (..., 2)
    # Kept inside exp's range; where the difference is that large the probability is 0 or 1 to all digits anyway.
    odds = np.clip(joint[..., 0] - joint[..., 1], -700.0, 700.0)
    return np.asarray(1.0 / (1.0 + np.exp(odds)))
