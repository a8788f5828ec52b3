"""Patients of several centres: what folds are stratified by, and which centres have figures of their own."""

from collections.abc import Sequence

import numpy as np

from train.core.arrays import Booleans, Labels

CLASSES = {1: "malignant", 0: "reactive"}
LEAST = 5  # patients of each class: below, a centre has no figures of its own, and nothing is trained without it


def strata(labels: Labels, centres: Sequence[str] | None, folds: int) -> Labels:
    """What folds are stratified by: the label, or with centres a number for each class of each centre, (P,).

    A class of a centre with fewer patients than folds cannot be in each of them. Such are taken together, class by
    class; if all of them together are still fewer, they join the largest centre's.

    Args:
        labels: (P,) 1 malignant, 0 reactive.
        centres: (P,) names, or None.
        folds: number of folds.
    """
    if centres is None:
        return labels
    found = np.empty(len(labels), dtype=np.int64)
    number = 0
    for label in np.unique(labels):
        groups = [np.flatnonzero(chosen & (labels == label)) for chosen in centre_groups(centres).values()]
        large = [group for group in groups if len(group) >= folds]
        small = [group for group in groups if len(group) < folds]
        if any(map(len, small)):
            rest = np.concatenate(small)
            if large and len(rest) < folds:
                most = max(range(len(large)), key=lambda place: len(large[place]))
                large[most] = np.concatenate([large[most], rest])
            else:
                large.append(rest)
        for group in large:
            found[group] = number
            number += 1
    return found


def stratified_by(labels: Labels, centres: Sequence[str] | None, folds: int) -> str:
    """What `strata` does, in words."""
    if centres is None:
        return "stratified by class"
    small = [
        f"{number} {title} of {name}"
        for name, chosen in centre_groups(centres).items()
        for label, title in CLASSES.items()
        if 0 < (number := int((chosen & (labels == label)).sum())) < folds
    ]
    together = f"; fewer than {folds}, so not in every fold and taken together: {', '.join(small)}" if small else ""
    return f"stratified by class and centre{together}"


def centre_groups(centres: Sequence[str] | None) -> dict[str, Booleans]:
    """The patients of each centre: name -> (P,), by name; empty without centres."""
    names = np.array(centres or ())
    return {str(name): names == name for name in np.unique(names)}


def has_figures(labels: Labels, chosen: Booleans) -> bool:
    """Whether these patients are enough for figures of their own: LEAST of each class."""
    return all(int((labels[chosen] == label).sum()) >= LEAST for label in (0, 1))
