"""The nested protocol's outer folds with fewer training patients, judged on the same held-out ones.

A fold's patients are put in a random order once, class by class; a size takes the first of each class. So the patients
of a smaller size are among those of every larger one, and all sizes have the classes in the fold's proportion.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infer.errors import UsageError
from train.core.arrays import Indices
from train.data.centres import CLASSES
from train.evaluation.nested.plan import OUTER, Centres, Outer, inner_folds

SHARES = (0.25, 0.5, 0.75, 1.0)
LEAST = 5  # training patients of each class: with fewer, an inner fold would be fitted on two of a class


@dataclass(frozen=True)
class Size:
    """One size of the training set, with the outer folds of all repeats at that size."""

    share: float  # of each outer fold's training patients
    outers: tuple[Outer, ...]

    @property
    def patients(self) -> float:
        """Mean number of training patients of an outer fold."""
        return float(np.mean([len(outer.training) for outer in self.outers]))

    def __str__(self) -> str:
        return f"{self.share:.0%}"


def sizes_of(
    labels: Indices, outers: Sequence[Outer], seed: int, centres: Centres = None
) -> tuple[list[Size], list[float]]:
    """All sizes with enough patients of each class in every fold, smallest first, and the shares that have not.

    At 100% the folds are those given, unchanged.

    Raises:
        UsageError: fewer than two sizes are large enough.
    """
    fewest = {label: min(int((labels[outer.training] == label).sum()) for outer in outers) for label in CLASSES}
    enough = [share for share in SHARES if all(_drawn(share, number) >= LEAST for number in fewest.values())]
    if len(enough) < 2:
        have = " and ".join(f"{(labels == label).sum()} {name}" for label, name in CLASSES.items())
        raise UsageError(
            f"learning-curve: has too few patients ({have}). It needs {patients_needed(SHARES[-2])} of each class to "
            f"compare two sizes, {patients_needed(SHARES[0])} for all {len(SHARES)}"
        )
    sizes = [Size(share, tuple(shrunk(outer, labels, share, seed, centres) for outer in outers)) for share in enough]
    return sizes, [share for share in SHARES if share not in enough]


def shrunk(outer: Outer, labels: Indices, share: float, seed: int, centres: Centres = None) -> Outer:
    """An outer fold with a share of its training patients, and inner folds among these; others are held out by no one.

    Args:
        outer: the whole fold.
        labels: (P,) labels of all patients.
        share: above 0, at most 1; of each class, rounded up.
        seed: random seed of the order in which patients are taken.
        centres: (P,) by which the inner folds are stratified, too.
    """
    if share == 1:
        return outer
    rng = np.random.default_rng([seed, outer.repeat, outer.number])
    taken = []
    for label in CLASSES:
        order = rng.permutation(outer.training[labels[outer.training] == label])
        taken.append(order[: _drawn(share, len(order))])
    training = np.sort(np.concatenate(taken))
    inner = tuple(inner_folds(labels, training, seed + outer.repeat, centres))
    return Outer(outer.repeat, outer.number, training, outer.held_out, inner)


def patients_needed(share: float) -> int:
    """How many patients of each class a cohort needs, so that every fold has LEAST of them at this share."""
    number = LEAST
    while _drawn(share, number - math.ceil(number / OUTER)) < LEAST:
        number += 1
    return number


def _drawn(share: float, number: int) -> int:
    return math.ceil(share * number)
