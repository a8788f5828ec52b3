"""Gaussian naive Bayes in NumPy, from the parameters in the manifest: no pickle and no scikit-learn at run time."""

import msgspec
import numpy as np
import numpy.typing as npt

from infer.members.features import COUNT, with_outliers


class NaiveBayes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Gaussian naive Bayes on 21 features (infer.members.features), min-max scaled. Rows: reactive, malignant."""

    count_floor: float  # 10^9/L; lower counts are raised to it, or the odds of malignancy would rise again; 0: no floor
    quantiles: list[float]  # (20,) the 90th training percentile of each feature except the last
    feature_low: list[float]  # (21,) training minimum
    feature_range: list[float]  # (21,) training maximum - minimum, 1 where they are equal
    prior: list[float]  # (2,)
    mean: list[list[float]]  # (2, 21)
    variance: list[list[float]]  # (2, 21)


def check_naive_bayes(model: NaiveBayes, features: int) -> None:
    """Check what the types cannot express.

    Raises:
        ValueError: the number of features is different, or a value is not allowed.
    """
    rows = (model.feature_low, model.feature_range, *model.mean, *model.variance)
    if not (
        len(model.quantiles) == features - 1
        and len(model.prior) == len(model.mean) == len(model.variance) == 2
        and all(len(row) == features for row in rows)
    ):
        raise ValueError(f"naive_bayes must describe {features} features")
    if not all(value > 0 for row in (model.prior, model.feature_range, *model.variance) for value in row):
        raise ValueError("naive_bayes has a prior, variance or range that is not above 0")
    if model.count_floor < 0:
        raise ValueError("naive_bayes has a count_floor below 0")


def malignant_probability(base: npt.NDArray[np.float64], model: NaiveBayes) -> npt.NDArray[np.float64]:
    """Probability of malignancy: (..., 20) features without the outlier count -> (...,).

    scikit-learn's GaussianNB.predict_proba on min-max scaled features, in the log domain; low counts are raised.
    """
    base = np.array(base)
    base[..., COUNT] = np.maximum(base[..., COUNT], model.count_floor)
    features = with_outliers(base, np.array(model.quantiles))  # (..., 21)
    scaled = (features - np.array(model.feature_low)) / np.array(model.feature_range)
    mean, variance = np.array(model.mean), np.array(model.variance)  # (2, 21)
    deviation = (scaled[..., None, :] - mean) ** 2 / variance  # (..., 2, 21)
    joint = np.log(model.prior) - 0.5 * np.sum(np.log(2.0 * np.pi * variance) + deviation, axis=-1)  # (..., 2)
    # Clipped to exp's range; beyond it the probability is 0 or 1 to all digits anyway.
    odds = np.clip(joint[..., 0] - joint[..., 1], -700.0, 700.0)
    return np.asarray(1.0 / (1.0 + np.exp(odds)))
