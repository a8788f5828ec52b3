"""Merges the classes that are most often confused: first and second choice for the same picture.

The report merges 20 classes into 15 from these confusions without saying how. Here the pair with the largest share of
confusions among its pictures is merged, repeatedly. Classes that are no picture's first choice are merged first.
"""

import numpy as np
import numpy.typing as npt


def fuse(probabilities: npt.NDArray[np.floating], classes_left: int) -> npt.NDArray[np.int64]:
    """Map each class to its class after fusion: (N, C) probabilities -> (C,) values 0 to classes_left - 1."""
    classes = probabilities.shape[1]
    confusion = first_second_confusion(probabilities)
    groups = [[index] for index in range(classes)]
    while len(groups) > classes_left:
        confused = np.array([[_confusion_share(confusion, a, b) for b in groups] for a in groups])
        np.fill_diagonal(confused, -1.0)
        empty = [index for index, group in enumerate(groups) if not confusion[group].any()]
        if empty:  # merge empty classes before any two that have pictures
            pair = (empty[0], int(confused[empty[0]].argmax()))
        else:
            first, second = np.unravel_index(confused.argmax(), confused.shape)
            pair = (int(first), int(second))
        keep, gone = sorted(pair)
        groups[keep] += groups.pop(gone)
    fusion = np.empty(classes, dtype=np.int64)
    for fused, members in enumerate(groups):
        fusion[members] = fused
    return fusion


def first_second_confusion(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Number of pictures with class i as first and class j as second choice: (N, C) -> (C, C)."""
    classes = probabilities.shape[1]
    order = np.argsort(-probabilities, axis=1, kind="stable")
    return np.bincount(order[:, 0] * classes + order[:, 1], minlength=classes**2).reshape(classes, classes)


def _confusion_share(confusion: npt.NDArray[np.int64], a: list[int], b: list[int]) -> float:
    """Confusions between two groups of classes, divided by the number of pictures in both."""
    between = confusion[np.ix_(a, b)].sum() + confusion[np.ix_(b, a)].sum()
    return float(between / max(1, confusion[a].sum() + confusion[b].sum()))
