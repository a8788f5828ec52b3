"""The same picture twice: the same pixels, or the same picture compressed again or made brighter.

Cells look alike, so a hash alone is no proof. Pairs whose 64-bit difference hashes differ in at most 8 bits are
compared in a grey copy of 28 x 28, and from a correlation of .99 on taken for one. On 10,622 real pictures of 130
patients: of 55.8 million pairs of different patients 14,414 differ in 10 bits or fewer, and none correlates by more
than .963, whatever its hash, so no alarm is false. Of 2,500 of them 99.9% are found when compressed again at quality
60, and all when 20 levels brighter or 30 darker. What was turned, mirrored, rescaled or cut elsewhere is not found.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from train.checking.finding import Finding, correct, counted, look
from train.checking.summaries import Prints, Summaries
from train.core.arrays import Indices

MOST_BITS, LEAST_CORRELATION = 8, 0.99
FLAT = 1.0  # standard deviation in grey levels: a picture with less shows nothing, and is like every other such
ROWS = 512  # of the table of distances at once


def findings_of_duplicates(looked: Summaries) -> list[Finding]:
    """What pictures occur more than once, within a patient and between patients."""
    same, alike = identical(looked.prints), near(looked.prints)
    between = [pair for pair in same if looked.owner[pair[0]] != looked.owner[pair[1]]]
    within = [pair for pair in same + alike if looked.owner[pair[0]] == looked.owner[pair[1]]]
    across = [pair for pair in alike if looked.owner[pair[0]] != looked.owner[pair[1]]]
    found = []
    if shown := [pair for pair in between if not _is_flat(looked.prints, pair[0])]:
        todo = (
            "Find out whose it is and delete the other's, or set LABEL to -1: models would be tested on what they saw."
        )
        found.append(
            correct("same picture", f"{_patients(looked, shown)} share the same picture", todo, _places(looked, shown))
        )
    if flat := [pair for pair in between if _is_flat(looked.prints, pair[0])]:
        todo = "They show nothing: delete them, and find out why they were taken."
        found.append(
            look("same picture", f"{_patients(looked, flat)} share an empty picture", todo, _places(looked, flat))
        )
    if across:
        what = f"{_patients(looked, across)} share nearly the same picture, compressed again or otherwise changed"
        todo = "Look at both; if they are one, find out whose it is and delete the other's."
        found.append(look("same picture", what, todo, _places(looked, across)))
    if within:
        patients = len({int(looked.owner[one]) for one, _ in within})
        what = f"{counted(len(within), 'pair')} of (nearly) the same picture within {counted(patients, 'patient')}"
        found.append(look("same picture", what, "Keep one of each: a copy counts twice.", _places(looked, within)))
    return found


def identical(prints: Prints) -> list[tuple[int, int]]:
    """Pairs of pictures with the same pixels: each with the first that has them."""
    first: dict[bytes, int] = {}
    pairs = [(first.setdefault(digest, at), at) for at, digest in enumerate(prints.digests)]
    return [(one, other) for one, other in pairs if one != other]


def near(prints: Prints) -> list[tuple[int, int]]:
    """Pairs of pictures that are nearly the same, but not the same."""
    seen = prints.small.reshape(len(prints.small), -1).astype(np.float32)
    seen -= seen.mean(axis=1, keepdims=True)
    length = np.linalg.norm(seen, axis=1, keepdims=True)
    seen = np.where(length > FLAT * np.sqrt(seen.shape[1]), seen / np.maximum(length, 1e-9), 0)
    found = []
    for one, other in _candidates(prints.hashes):
        by = np.einsum("ij,ij->i", seen[one], seen[other])
        pairs = zip(one[by >= LEAST_CORRELATION].tolist(), other[by >= LEAST_CORRELATION].tolist(), strict=True)
        found += [pair for pair in pairs if prints.digests[pair[0]] != prints.digests[pair[1]]]
    return found


def _candidates(hashes: np.ndarray) -> Iterator[tuple[Indices, Indices]]:
    """Pairs whose hashes differ in few bits, the earlier picture first."""
    for start in range(0, len(hashes), ROWS):
        rows = hashes[start : start + ROWS]
        bits = np.bitwise_count(rows[:, None] ^ hashes[None, start:])
        one, other = np.nonzero(np.triu(bits <= MOST_BITS, k=1))
        for at in range(0, len(one), 2**16):
            part = slice(at, at + 2**16)
            yield one[part] + start, other[part] + start


def _is_flat(prints: Prints, picture: int) -> bool:
    return float(prints.small[picture].std()) <= FLAT


def _patients(looked: Summaries, pairs: list[tuple[int, int]]) -> str:
    return counted(len({int(looked.owner[one]) for pair in pairs for one in pair}), "patient")


def _places(looked: Summaries, pairs: list[tuple[int, int]]) -> list[str]:
    """The first pair of each two patients, and how many more there are."""
    of_two: defaultdict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for one, other in pairs:
        of_two[tuple(sorted((int(looked.owner[one]), int(looked.owner[other]))))].append((one, other))
    return [
        f"{looked.place(some[0][0])} and {looked.place(some[0][1])}"
        + (f", and {len(some) - 1} more of these" if len(some) > 1 else "")
        for some in of_two.values()
    ]
