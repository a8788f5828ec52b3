"""Finds pictures that stand more than once in a cohort: under two patients one of them has the other's cells."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

# Hexadecimal, of a picture's SHA-256: that any two of ten million pictures agree by chance is 3 in a million.
DIGITS = 16
MOST_NAMED = 5  # patients in a line of the log


class Duplicates:
    """Remembers 12 bytes a picture."""

    def __init__(self) -> None:
        self._patients: list[str] = []
        self._digests, self._owners = array("Q"), array("I")

    def add(self, patient_id: str, digests: Iterable[str]) -> None:
        """One more patient, with the first DIGITS of each picture's digest."""
        for digest in digests:
            self._digests.append(int(digest, 16))
            self._owners.append(len(self._patients))
        self._patients.append(patient_id)

    def found(self) -> dict[tuple[str, ...], int]:
        """The patients that share pictures, sorted, and how many they share.

        One patient alone: so many of its pictures stand in its folder more than once.
        """
        digests, times = np.unique(np.array(self._digests), return_counts=True)
        repeated = set(digests[times > 1].tolist())
        owners: defaultdict[int, set[str]] = defaultdict(set)
        for digest, owner in zip(self._digests, self._owners, strict=True):
            if digest in repeated:
                owners[digest].add(self._patients[owner])
        return dict(sorted(Counter(tuple(sorted(of_one)) for of_one in owners.values()).items()))


def in_words(patients: tuple[str, ...], pictures: int) -> str:
    """A line for the log."""
    what = "1 picture" if pictures == 1 else f"{pictures} pictures"
    if len(patients) == 1:
        return f"{patients[0]}: {what} more than once in the folder. Each copy was counted"
    *others, last = patients[:MOST_NAMED]
    names = f"{', '.join(others)} and {last}"
    if len(patients) > MOST_NAMED:
        names = f"{', '.join(patients[:MOST_NAMED])} and {len(patients) - MOST_NAMED} more"
    return f"{names}: the same {what}. Find out whose they are before any of these results is used"
