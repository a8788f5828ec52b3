"""Fuses the most confused classes: those that are often first and second choice for the same picture.

The report fuses 20 to 15 from these confusions without saying how; here the pair with the largest share of
confusions among its pictures is fused, again and again. A class that no picture has first is fused before that.
"""

import numpy as np
import numpy.typing as npt


def fuse(probabilities: npt.NDArray[np.floating], classes_left: int) -> npt.NDArray[np.int64]:
    """The class after fusion of each class: (N, C) probabilities -> (C,) values 0 to classes_left - 1."""
    classes = probabilities.shape[1]
    confusion = first_second_confusion(probabilities)
    groups = [[index] for index in range(classes)]
    while len(groups) > classes_left:
        confused = np.array([[_confusion_share(confusion, a, b) for b in groups] for a in groups])
        np.fill_diagonal(confused, -1.0)
        empty = [index for index, group in enumerate(groups) if not confusion[group].any()]
        if empty:  # a class that no picture has first goes before any two that pictures do have
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
    """How many pictures have class i first and class j second: (N, C) -> (C, C)."""
    classes = probabilities.shape[1]
    order = np.argsort(-probabilities, axis=1, kind="stable")
    return np.bincount(order[:, 0] * classes + order[:, 1], minlength=classes**2).reshape(classes, classes)


def _confusion_share(confusion: npt.NDArray[np.int64], a: list[int], b: list[int]) -> float:
    """Confusions between two groups of classes, per picture of the two."""
    between = confusion[np.ix_(a, b)].sum() + confusion[np.ix_(b, a)].sum()
    return float(between / max(1, confusion[a].sum() + confusion[b].sum()))
