"""Finds duplicate pictures in a cohort: if two patients share one, one of them has the other's cells."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

# Hexadecimal digits of a picture's SHA-256: the chance of any collision among ten million pictures is 3 in a million.
DIGITS = 16
MOST_NAMED = 5  # patients listed per log line


class Duplicates:
    """Collects picture digests, 12 bytes per picture."""

    def __init__(self) -> None:
        self._patients: list[str] = []
        self._digests, self._owners = array("Q"), array("I")

    def add(self, patient_id: str, digests: Iterable[str]) -> None:
        """Add a patient, with the first DIGITS of each picture's digest."""
        for digest in digests:
            self._digests.append(int(digest, 16))
            self._owners.append(len(self._patients))
        self._patients.append(patient_id)

    def found(self) -> dict[tuple[str, ...], int]:
        """The patients that share pictures, sorted, and how many they share.

        A single patient: that many of its pictures occur more than once in its folder.
        """
        digests, times = np.unique(np.array(self._digests), return_counts=True)
        repeated = set(digests[times > 1].tolist())
        owners: defaultdict[int, set[str]] = defaultdict(set)
        for digest, owner in zip(self._digests, self._owners, strict=True):
            if digest in repeated:
                owners[digest].add(self._patients[owner])
        return dict(sorted(Counter(tuple(sorted(of_one)) for of_one in owners.values()).items()))


def in_words(patients: tuple[str, ...], pictures: int) -> str:
    """One group of duplicates as a log message."""
    what = "1 picture" if pictures == 1 else f"{pictures} pictures"
    if len(patients) == 1:
        return f"{patients[0]}: {what} found more than once in the folder. Each copy was counted"
    *others, last = patients[:MOST_NAMED]
    names = f"{', '.join(others)} and {last}"
    if len(patients) > MOST_NAMED:
        names = f"{', '.join(patients[:MOST_NAMED])} and {len(patients) - MOST_NAMED} more"
    return f"{names} share {what}. Find out whose they are before using any of these results"
