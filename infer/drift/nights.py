"""All nights so far: a test that may be looked at every night for years and raises a false alarm in 5% of hospitals.

A new p every night would cry wolf every few weeks. And nights are not independent: all are compared with the same 130
training patients, so whatever these have by chance shows in every night, and a product of nightly evidence would grow
from that alone. Therefore, for each measure, with T the sum of the normal scores of all patients so far and N their
number:

    nothing changed:  mean score ~ N(0, s v), v = 1 / training patients: the error of the training sample itself
    drift:            mean score ~ N(0, s v + TAU^2)
    e = N(T; 0, s N + N^2 (s v + TAU^2)) / N(T; 0, s N + N^2 s v)

e is the ratio of two marginal likelihoods, hence a martingale under "nothing changed", averaged over training samples.
By Ville's inequality it ever reaches 1 / a with probability a at most (Robbins 1970; Howard et al. 2021). Each of K
measures gets a = ALPHA / K, which holds however they depend on each other. (Their mean e would be a martingale only if
no measure foretold another.) Where values are tied, scores vary less than normal ones, and false alarms are rarer.

s = 1 + 10 v: scores that stand on the quantiles of few training patients vary more, among patients and among training
samples. Drawn without ties: 1.24 with 40 training patients, 1.08 with 130, 1.02 with 520 (tests/drift).

It looks for a change of location alone. It takes every patient of every night for another one: of a cohort that keeps
its patients from night to night, only new ones may be counted.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from infer.drift.history import Line
from infer.drift.measures import in_order, title
from infer.drift.night import ALPHA

TAU = 0.5  # SD: the changes looked for. From .3 to 1 it makes little difference
ALARM = 1 / ALPHA  # the evidence that raises an alarm
WIDER = 10.0  # times 1 / training patients: how much more than 1 the scores' variance is
_LARGEST_LOG = 690.0  # e to this is still a number


@dataclass(frozen=True)
class OverNights:
    """A measure over all nights."""

    key: str
    title: str
    patients: int
    mean_score: float  # in SDs of the training patients; 0 if there are no patients
    e_value: float
    since: str  # date and time of the first run whose evidence raised an alarm; empty if none did

    @property
    def direction(self) -> str:
        """What the patients' values are, in comparison with the training patients'."""
        return "higher" if self.mean_score > 0 else "lower"


@dataclass(frozen=True)
class Nights:
    """All measures over all nights."""

    runs: int
    patients: int  # that count: not those of a night with fewer than five
    measures: tuple[OverNights, ...]

    @property
    def evidence(self) -> float:
        """The largest e-value, divided by the number of measures: an alarm from 20 on."""
        return max((one.e_value for one in self.measures), default=0.0) / max(1, len(self.measures))

    @property
    def changed(self) -> tuple[OverNights, ...]:
        """The measures that have raised an alarm, the first to do so first. An alarm stays as long as the history."""
        return tuple(sorted((one for one in self.measures if one.since), key=lambda one: (one.since, -one.e_value)))


def over_nights(lines: Sequence[Line], reference: Iterable[str], training_patients: int) -> Nights:
    """What the runs say together.

    Args:
        lines: one a run, in the order in which they were appended.
        reference: the bundle's measures.
        training_patients: their number.
    """
    keys = in_order(reference)
    measures = tuple(_over_nights(key, lines, training_patients, ALARM * len(keys)) for key in keys)
    counted = sum(max((number for _, number in line.measures.values()), default=0) for line in lines)
    return Nights(len(lines), counted, measures)


def with_history(
    earlier: Sequence[Line], tonight: Line, reference: Iterable[str], training_patients: int
) -> tuple[Nights, Line]:
    """The earlier nights together with tonight.

    Args:
        earlier: from `read_history`, of this bundle.
        tonight: without evidence. Where an earlier line has its key, the run has been counted and is not again.
        reference: the bundle's measures.
        training_patients: their number.

    Returns:
        All nights, and tonight's line with their evidence, for `append_history`.
    """
    counted = any(line.run == tonight.run for line in earlier)
    nights = over_nights([*earlier, *(() if counted else (tonight,))], reference, training_patients)
    return nights, tonight.with_evidence(nights.evidence, alarm=bool(nights.changed))


def log_e_value(total: float, patients: int, training_patients: int) -> float:
    """The natural logarithm of a measure's e.

    Args:
        total: sum of normal scores.
        patients: their number; 0 gives 0.
        training_patients: on whose quantiles the scores stand.
    """
    unchanged = (1 + WIDER / training_patients) * (patients + patients**2 / training_patients)
    drifting = unchanged + (patients * TAU) ** 2
    if not patients:
        return 0.0
    return 0.5 * math.log(unchanged / drifting) + total**2 / 2 * (1 / unchanged - 1 / drifting)


def _over_nights(key: str, lines: Sequence[Line], training_patients: int, alarm: float) -> OverNights:
    total, patients, log_e, since = 0.0, 0, 0.0, ""
    for line in lines:
        more, number = line.measures.get(key, (0.0, 0))
        total, patients = total + more, patients + number
        log_e = log_e_value(total, patients, training_patients)
        if not since and log_e >= math.log(alarm):
            since = line.when
    mean = total / patients if patients else 0.0
    return OverNights(key, title(key), patients, mean, math.exp(min(log_e, _LARGEST_LOG)), since)
