"""Normal scores: where a value stands among others, as a number that is N(0, 1) for these.

The reference of a measure is its training patients' quantiles at the levels 1/2Q, 3/2Q, ... (Q of them). Several equal
quantiles are a value that many training patients have: a class that they lack, 0 or 1, one JPEG quality for all.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_NORMAL = NormalDist()


def quantiles(name: str, values: Sequence[float]) -> Floats:
    """A reference's quantiles as an array (Q,).

    Raises:
        ValueError: fewer than two, one that is not finite, or one that is smaller than that before it.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all() or (np.diff(array) < 0).any():
        raise ValueError(f"{name}: must be two or more finite quantiles in ascending order")
    return array


def training_values(reference: Floats, patients: int) -> Floats:
    """As many values as there were training patients, ascending (patients,), that have these quantiles.

    They are the order statistics that np.quantile would have interpolated. Beyond the first and the last quantile the
    line through the nearest two is continued, for one patient or two at each end. Beside a value that several
    quantiles have lies nothing: there the nearer quantile is taken, or 0 and 1 would get patients in between.
    """
    count = len(reference)
    place = np.linspace(0, 1, patients) * count - 0.5  # in units of quantiles, from -0.5 to count - 0.5
    left = np.clip(np.floor(place).astype(np.int64), 0, count - 2)
    share = place - left
    tied = np.concatenate(([False], np.diff(reference) == 0, [False]))
    tied = tied[:-1] | tied[1:]  # (Q,) whether a neighbour has the same value
    share = np.where(tied[left] | tied[left + 1], np.round(np.clip(share, 0, 1)), share)
    return np.sort(reference[left] * (1 - share) + reference[left + 1] * share)


def normal_scores(values: Floats, reference: Floats) -> Floats:
    """The score of each value (N,) -> (N,).

    A value that several quantiles have gets the mean of the normal scores of all that share it, one beyond the
    quantiles the mean of that tail. So, but for what is interpolated, a training patient's score is a conditional mean
    of an N(0, 1): its mean is 0, its variance at most 1 (1.03 where values crowd at both ends), and by Jensen's
    inequality its exponential moments are at most the normal's. A measure with few different values has a smaller
    variance, down to 0 if all training patients have the same.
    """
    count = len(reference)
    at = (2 * np.arange(count) + 1) / (2 * count)
    scores = np.interp(values, reference, [_NORMAL.inv_cdf(level) for level in at])
    first, after = np.searchsorted(reference, values, "left"), np.searchsorted(reference, values, "right")
    for value, ties in zip(*np.unique(reference, return_counts=True), strict=True):
        if ties > 1:
            low = int(np.searchsorted(reference, value))
            scores[values == value] = _mean_score(low / count, (low + int(ties)) / count)
    tail = _mean_score(0, 1 / (2 * count))
    scores[after == 0], scores[first == count] = tail, -tail
    return scores


def rank_scores(pooled: Floats) -> Floats:
    """Normal scores of the ranks in a pooled sample (N,) -> (N,), van der Waerden's: Phi^-1(rank / (N + 1)).

    Equal values get the mean of their ranks' scores.
    """
    count = len(pooled)
    by_rank = np.array([_NORMAL.inv_cdf(rank / (count + 1)) for rank in range(1, count + 1)])
    _, group, sizes = np.unique(pooled, return_inverse=True, return_counts=True)
    means = np.add.reduceat(by_rank, np.cumsum(sizes) - sizes) / sizes
    return np.asarray(means[group])


def _mean_score(low: float, high: float) -> float:
    """The mean of an N(0, 1) between its quantiles at two levels."""
    return (_density_at(low) - _density_at(high)) / (high - low)


def _density_at(level: float) -> float:
    return _NORMAL.pdf(_NORMAL.inv_cdf(level)) if 0 < level < 1 else 0.0
