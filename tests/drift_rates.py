"""How often drift is found where there is none, and where there is: `python -m tests.drift_rates [NIGHTS] [SEED]`.

Every night has training patients of its own, drawn from the same hospital as its patients, and is compared with their
50 quantiles, as a run compares with a bundle's. There are two hospitals: one has all the measures of a run, drawn
independently, with their ties; in the other, as many measures have none, and no tie makes a test conservative.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from infer.drift.measures import CELL_CLASSES, TITLES, Values
from infer.drift.night import Drift, tonight
from infer.drift.nights import ALARM, log_e_value
from infer.drift.scores import normal_scores

TRAINING = 130
LEVELS = (2 * np.arange(50) + 1) / 100
CHANGED = "blue"  # the measure in which power is measured
Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]
Hospital = Mapping[str, Draw]


def _normal(rng: np.random.Generator, count: int) -> Floats:
    return rng.standard_normal(count)


def _share(lack: float, rng: np.random.Generator, count: int) -> Floats:
    return np.where(rng.random(count) < lack, 0.0, rng.gamma(2, 0.03, count))


def _is(share: float, rng: np.random.Generator, count: int) -> Floats:
    return (rng.random(count) < share).astype(np.float64)


def _whole(rng: np.random.Generator, count: int) -> Floats:
    return np.floor(rng.uniform(16, 201, count))


WITHOUT_TIES: Hospital = dict.fromkeys(TITLES, _normal)
WITH_TIES: Hospital = {
    **WITHOUT_TIES,
    # From a class that every patient has to one that 84% lack.
    **{f"share_{number}": partial(_share, 0.06 * number) for number in range(CELL_CLASSES)},
    "lymph_count": lambda rng, count: rng.lognormal(2, 0.8, count).round(1),
    "age_years": lambda rng, count: 100 * rng.beta(5, 3, count),
    "pictures": _whole,
    "probability": lambda rng, count: rng.beta(0.5, 0.4, count),
    "sex": partial(_is, 0.45),
    "decision_malignant": partial(_is, 0.6),
    "decision_reactive": partial(_is, 0.31),
    "decision_refer": partial(_is, 0.09),
}


def reference(hospital: Hospital, rng: np.random.Generator, training: int = TRAINING) -> dict[str, list[float]]:
    """The quantiles of the training patients, as a bundle has them."""
    return {key: np.quantile(draw(rng, training), LEVELS).tolist() for key, draw in hospital.items()}


def values(hospital: Hospital, rng: np.random.Generator, count: int, shift: float = 0.0, factor: float = 1.0) -> Values:
    """A night's patients, CHANGED multiplied and shifted (it is N(0, 1) in training)."""
    drawn = {key: draw(rng, count) for key, draw in hospital.items()}
    drawn[CHANGED] = drawn[CHANGED] * factor + shift
    night = Values()
    for row in zip(*(array.tolist() for array in drawn.values()), strict=True):
        # What is in the measures goes before the probability and the decision given.
        night.add(dict(zip(drawn, row, strict=True)), 0.5, "refer")
    return night


def night(hospital: Hospital, rng: np.random.Generator, count: int, shift: float = 0.0, factor: float = 1.0) -> Drift:
    """A night of a hospital with training patients of its own."""
    return tonight(reference(hospital, rng), TRAINING, values(hospital, rng, count, shift, factor))


def false_alarms(hospital: Hospital, count: int, nights: int, seed: int) -> tuple[float, float]:
    """Shares of nights without drift in which any measure changed, and of measures whose own p is .05 or less."""
    rng = np.random.default_rng(seed)
    drifts = [night(hospital, rng, count) for _ in range(nights)]
    p = [one.p for drift in drifts for one in drift.measures if one.p is not None]
    return float(np.mean([bool(drift.changed) for drift in drifts])), float(np.mean(np.array(p or [1.0]) <= 0.05))


def power(count: int, shift: float, factor: float, nights: int, seed: int) -> float:
    """Share of nights in which the measure that changed is found, among all others."""
    rng = np.random.default_rng(seed)
    drifts = [night(WITH_TIES, rng, count, shift, factor) for _ in range(nights)]
    return float(np.mean([any(one.key == CHANGED for one in drift.changed) for drift in drifts]))


def first_alarm(
    hospital: Hospital, rng: np.random.Generator, nights: int, count: int, shift: float = 0.0
) -> tuple[int, bool]:
    """The first night (from 1) that raises an alarm, 0 if none does, and whether it is CHANGED's."""
    found = []
    for key, draw in hospital.items():
        training = np.quantile(draw(rng, TRAINING), LEVELS)
        patients = draw(rng, nights * count) + (shift if key == CHANGED else 0.0)
        totals = normal_scores(patients, training).reshape(nights, count).sum(axis=1).cumsum()
        e_values = np.array(
            [log_e_value(total, (at + 1) * count, TRAINING) for at, total in enumerate(totals.tolist())]
        )
        over = np.flatnonzero(e_values >= np.log(ALARM * len(hospital)))
        if len(over):
            found.append((int(over[0]) + 1, key == CHANGED))
    return min(found, default=(0, False))


def main(nights: int, seed: int) -> None:
    for name, hospital in (("with ties", WITH_TIES), ("without ties", WITHOUT_TIES)):
        for count in (5, 20, 100, 500):
            any_measure, each = false_alarms(hospital, count, nights, seed)
            print(
                f"{name}, {count} patients: {any_measure:.1%} of nights, {each:.2%} of measures at p <= .05", flush=True
            )
    for count in (20, 100):
        for shift, factor in ((0.3, 1.0), (0.5, 1.0), (1.0, 1.0), (0.0, 1.5)):
            found = power(count, shift, factor, nights, seed)
            print(f"{count} patients, shift {shift} SD, spread x {factor}: found in {found:.0%} of nights", flush=True)
    rng = np.random.default_rng(seed)
    for shift, hospital in ((0.0, WITHOUT_TIES), *((shift, WITH_TIES) for shift in (0.0, 0.3, 0.5, 1.0))):
        for count in (5, 20):
            first = [first_alarm(hospital, rng, 300, count, shift) for _ in range(nights)]
            when = [number for number, _ in first if number]
            middle = f", median night {np.median(when):.0f}" if when else ""
            name = "with ties" if hospital is WITH_TIES else "without ties"
            print(f"{name}, 300 nights of {count}, shift {shift}: {len(when) / nights:.1%}{middle}", flush=True)


if __name__ == "__main__":
    main(*(int(given or default) for given, default in zip_longest(sys.argv[1:], (1000, 0))))
