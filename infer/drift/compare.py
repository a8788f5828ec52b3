"""Two samples of a measure, tonight's and the training patients': how likely is a difference as large by chance?

The training patients are a sample themselves, of 130, and a test that took their quantiles for the truth would see
drift in every large night. So both samples are pooled, and the thresholds come from dealing the pooled values anew into
two samples of these sizes. But for the training values, which are rebuilt from quantiles, this is exact at any number
of patients and with any ties, on average over training samples: one bundle may raise more false alarms than another.

- A measure that is constant in training: p is the chance of so uneven a deal of the patients with another value. Four
  of 20 give p = .0003 and eight of 100 .001; from there on about 8% of the patients are needed for that, however many
  they are, since 130 training patients without such a value rule out no less.
- A measure that is 0 or 1: the test of two shares.

Measures are tested one by one, not as groups (colour, cell classes): a group's threshold depends on how its measures
go together in the training patients, which quantiles do not say. Holm's correction holds however they do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infer.drift.scores import Floats, rank_scores

DRAWS = 49_999  # so that the smallest p, times 40 measures, is below .001
ENOUGH = 200  # draws with a statistic as large: p is then .004 or more, and known to 7%
CHUNK = 2_500  # draws at a time: 5 MiB at the most patients
SEED = 20_250  # the same samples give the same p
# A change of location is what another stain or camera makes, and is looked for first: this way it loses hardly any
# power to the second statistic, and spread loses some to location.
SPREAD_WEIGHT = 0.9
_EQUAL = 1e-9  # two sums of the same numbers in another order


@dataclass(frozen=True)
class Pooled:
    """Two samples as rank scores, tonight's last, and how far apart they are."""

    scores: Floats  # (N,) ascending
    location: float  # standardised difference of tonight's scores: above 0 if they are higher
    spread: float  # the same of their squares: above 0 if they are more spread out

    @property
    def statistic(self) -> float:
        """How far apart the samples are; below 0 never."""
        return max(abs(self.location), SPREAD_WEIGHT * abs(self.spread))

    @property
    def direction(self) -> str:
        """What tonight's values are, in comparison with the training patients'."""
        if abs(self.location) >= SPREAD_WEIGHT * abs(self.spread):
            return "higher" if self.location > 0 else "lower"
        return "more varied" if self.spread > 0 else "less varied"


def pool(training: Floats, tonight: Floats) -> Pooled:
    """Pool two samples (n,) and (m,)."""
    scores = rank_scores(np.concatenate((training, tonight)))
    of_tonight = scores[len(training) :]
    location, spread = _standardised(scores, len(tonight), of_tonight.sum(), (of_tonight**2).sum())
    return Pooled(np.sort(scores), float(location), float(spread))


def p_values(pairs: Sequence[Pooled], size: int, draws: int = DRAWS) -> list[float]:
    """The p of each pair of samples, by dealing them anew.

    Args:
        pairs: all of the same number of values, N.
        size: how many of these are tonight's; either sample's size gives the same.

    Returns:
        (1 + draws with a statistic as large) / (1 + draws). Drawing ends early where p is large (Besag, Clifford 1991).
    """
    rng = np.random.default_rng(SEED)
    alike: dict[bytes, list[int]] = {}  # without ties all measures have the same scores, and share what is dealt
    for number, pair in enumerate(pairs):
        alike.setdefault(pair.scores.tobytes(), []).append(number)
    p = [1.0] * len(pairs)
    as_large = [0] * len(pairs)
    dealt = 0
    while alike and dealt < draws:
        chunk = min(CHUNK, draws - dealt)
        count = len(pairs[0].scores)
        subsets = _subsets(rng, chunk, count, min(size, count - size))
        dealt += chunk
        for key, numbers in list(alike.items()):
            statistics = _dealt(pairs[numbers[0]].scores, subsets)
            for number in numbers:
                as_large[number] += int(np.count_nonzero(statistics >= pairs[number].statistic - _EQUAL))
                p[number] = (1 + as_large[number]) / (1 + dealt)
            if all(as_large[number] >= ENOUGH for number in numbers):
                del alike[key]
    return p


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p, in the order of `p`: those below alpha are false with probability alpha at most, together."""
    adjusted, largest = [0.0] * len(p), 0.0
    for place, number in enumerate(sorted(range(len(p)), key=lambda number: p[number])):
        largest = max(largest, min(1.0, (len(p) - place) * p[number]))
        adjusted[number] = largest
    return adjusted


def _dealt(scores: Floats, subsets: npt.NDArray[np.int64]) -> Floats:
    """The statistic of each draw, (draws,)."""
    chosen = np.take(scores, subsets)
    squares = np.einsum("ij,ij->j", chosen, chosen)
    location, spread = _standardised(scores, len(subsets), chosen.sum(axis=0), squares)
    return np.asarray(np.maximum(np.abs(location), SPREAD_WEIGHT * np.abs(spread)))


def _standardised(scores: Floats, size: int, total: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """Sums of `size` scores and of their squares, less their means and divided by their SDs over all subsets."""
    return _by_moments(scores, size, total), _by_moments(scores**2, size, squares)


def _by_moments(values: Floats, size: int, total: Floats) -> Floats:
    count = len(values)
    variance = values.var() * size * (count - size) / (count - 1)
    # Squares of 0 and 1 in equal parts are all the same but for rounding.
    return (total - size * values.mean()) / np.sqrt(variance) if variance > _EQUAL else np.zeros_like(total)


def _subsets(rng: np.random.Generator, draws: int, count: int, size: int) -> npt.NDArray[np.int64]:
    """Random subsets of range(count) without replacement, (size, draws): Floyd's algorithm (Bentley 1987)."""
    taken = np.zeros((draws, count), np.bool_)
    rows = np.arange(draws)
    subsets = np.empty((size, draws), np.int64)
    for place, last in enumerate(range(count - size, count)):
        chosen = rng.integers(0, last, draws, endpoint=True)
        chosen = np.where(taken[rows, chosen], last, chosen)
        taken[rows, chosen] = True
        subsets[place] = chosen
    return subsets
