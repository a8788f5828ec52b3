"""One night: each measure of tonight's patients against the training patients', and what is kept of it for later.

Values come in patient by patient; what leaves are means and medians of 20 patients or more, and scores summed over five
or more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from infer.drift.compare import SEED, Pooled, holm, p_values, pool
from infer.drift.measures import Sums, Values, in_order, title
from infer.drift.scores import Floats, normal_scores, quantiles, training_values

FEWEST = 20  # patients: with fewer, only differences that nobody overlooks could be told from chance
MOST = 2_000  # patients compared: with all of 45,000, a difference's standard error would be 3% smaller
ALPHA = 0.05  # probability of a false alarm a night
# Patients: a sum over fewer is too near to a patient's own values for a file that is kept for years.
FEWEST_IN_A_SUM = 5


@dataclass(frozen=True)
class Compared:
    """A measure. What says something of tonight's patients is None or empty if there are fewer than 20."""

    key: str
    title: str
    patients: int  # that have a value
    mean: float | None
    median: float | None
    training_mean: float
    training_median: float
    p: float | None
    adjusted_p: float | None  # Holm's, over all measures with a p
    direction: str  # higher, lower, more varied, less varied

    @property
    def changed(self) -> bool:
        """Whether it differs from the training patients' by more than chance."""
        return self.adjusted_p is not None and self.adjusted_p <= ALPHA


@dataclass(frozen=True)
class Drift:
    """All measures of a night, in the order of TITLES."""

    patients: int  # measured
    measures: tuple[Compared, ...]

    @property
    def enough(self) -> bool:
        """Whether there are enough patients to tell."""
        return self.patients >= FEWEST

    @property
    def changed(self) -> tuple[Compared, ...]:
        """The measures that differ, the smallest p first."""
        return tuple(sorted((one for one in self.measures if one.changed), key=lambda one: one.adjusted_p or 0))


def tonight(reference: Mapping[str, Sequence[float]], patients: int, values: Values) -> Drift:
    """Compare a run's patients with the training patients. The order in which patients were added changes nothing.

    Args:
        reference: for each measure, quantiles of the training patients' values: Q of them, at 1/2Q, 3/2Q, ...
        patients: number of training patients, two or more.
        values: of tonight's patients. Measures that the reference lacks are left out.

    Raises:
        ValueError: the reference is not what it should be. The message names the measure.
    """
    if patients < 2:
        raise ValueError(f"{patients} training patients: must be two or more")
    known = {key: quantiles(key, reference[key]) for key in in_order(reference)}
    found = {key: np.sort(np.array(values.of(key), np.float64)) for key in known}
    pooled = {
        key: pool(training_values(known[key], patients), _some(found[key]))
        for key in known
        if values.patients >= FEWEST and len(found[key]) >= FEWEST
    }
    p = _p_values(pooled, {key: min(len(found[key]), MOST) for key in pooled})
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    measures = tuple(
        Compared(
            key,
            title(key),
            len(found[key]),
            float(found[key].mean()) if key in p else None,
            float(np.median(found[key])) if key in p else None,
            float(known[key].mean()),
            float(np.median(known[key])),
            p.get(key),
            adjusted.get(key),
            pooled[key].direction if key in p else "",
        )
        for key in known
    )
    return Drift(values.patients, measures)


def summed_scores(reference: Mapping[str, Sequence[float]], values: Values) -> Sums:
    """What a history keeps of patients: sums of normal scores, without measures of fewer than five of them."""
    sums: Sums = {}
    for key in in_order(reference):
        found = np.array(values.of(key), np.float64)
        if len(found) >= FEWEST_IN_A_SUM:
            sums[key] = (math.fsum(normal_scores(found, quantiles(key, reference[key]))), len(found))
    return sums


def _some(ascending: Floats) -> Floats:
    """All values, or a random choice of 2,000, always the same."""
    if len(ascending) <= MOST:
        return ascending
    return np.random.default_rng(SEED).choice(ascending, MOST, replace=False)


def _p_values(pooled: Mapping[str, Pooled], sizes: Mapping[str, int]) -> dict[str, float]:
    """Measure -> p, computed together for measures with the same number of patients."""
    p = dict.fromkeys(pooled, 1.0)
    for size in set(sizes.values()):
        keys = [key for key in pooled if sizes[key] == size]
        p.update(zip(keys, p_values([pooled[key] for key in keys], size), strict=True))
    return p
