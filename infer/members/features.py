"""The 21 features per patient of the SCAN + naive Bayes member (Collin & Le Chenadec, section 2.2).

Sex (F = 1), count, age; the share of each cell class; entropy and number of classes; how many are outliers.
"""

import numpy as np
import numpy.typing as npt

COUNT = 1  # index of the lymphocyte count among the features
ENTROPY_OFFSET = 1e-3  # inside the logarithm, as in the report's code
OUTLIER_QUANTILE = 0.9


def cell_classes(
    probabilities: npt.NDArray[np.floating], fusion: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Each picture's class after fusion, and its confidence: (N, 20), (20,) -> (N,), (N,).

    The class is the fused class of the most probable class. Sums are not compared, because several improbable classes
    fused together could then outvote the most probable one. The confidence is the sum over the classes fused with it.
    """
    classes = np.asarray(fusion, dtype=np.int64)[probabilities.argmax(axis=1)]  # (N,)
    same = classes[:, None] == np.asarray(fusion)[None, :]  # (N, 20)
    return classes, np.where(same, probabilities, 0.0).sum(axis=1, dtype=np.float64)


def base_features(
    clinical: npt.NDArray[np.floating], cell_classes: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.float64]:
    """All features except the last: (3 + classes + 2,).

    Args:
        clinical: (3,) sex, count, age.
        cell_classes: (n_images,) class of each picture after fusion, 0 to classes - 1; at least one.
    """
    shares = np.bincount(cell_classes, minlength=classes) / len(cell_classes)  # (classes,)
    entropy = -np.sum(shares * np.log(shares + ENTROPY_OFFSET))
    variety = np.count_nonzero(shares)
    return np.concatenate([np.asarray(clinical, dtype=np.float64), shares, [entropy, variety]])


def with_outliers(base: npt.NDArray[np.float64], quantiles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Append the number of features above their 90th training percentile: (..., 20) -> (..., 21)."""
    outliers = np.count_nonzero(base > quantiles, axis=-1, keepdims=True)
    return np.concatenate([base, outliers], axis=-1)
