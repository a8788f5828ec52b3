"""Fusion of the most confused classes, on confusions constructed by hand."""

import numpy as np
import numpy.typing as npt
import pytest

from infer.members.features import cell_classes
from train.members.scan.fusion import first_second_confusion, fuse


def pictures(*choices: tuple[int, int, int], classes: int) -> npt.NDArray[np.float64]:
    """(first choice, second choice, number of pictures) -> probabilities (N, classes)."""
    rows = []
    for first, second, times in choices:
        row = np.full(classes, 0.1 / (classes - 2))
        row[first], row[second] = 0.6, 0.3
        rows += [row] * times
    return np.array(rows)


def test_confusion_by_hand() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.3, 0.6, 0.1]])
    assert first_second_confusion(probabilities).tolist() == [[0, 2, 0], [1, 0, 0], [0, 1, 0]]


def test_the_pair_with_the_largest_share_of_confusions_is_fused() -> None:
    # 1 and 3 are confused in 10 of their 12 pictures; 0 and 1 more often, but in only 21 of their 36.
    confused = pictures(
        (1, 3, 5), (3, 1, 5), (1, 0, 1), (3, 2, 1), (0, 1, 20), (0, 2, 10), (2, 1, 20), (2, 0, 10), classes=4
    )
    assert fuse(confused, 3).tolist() == [0, 1, 2, 1]


def test_fusion_goes_on_with_groups() -> None:
    # First 0 and 1 (all 20 pictures). Then 2 is confused with this group in 8 of 10 pictures, with 3 in 2.
    confused = pictures(
        (0, 1, 10), (1, 0, 10), (2, 0, 4), (2, 1, 4), (2, 3, 2), (3, 4, 3), (4, 3, 3), (3, 2, 9), classes=5
    )
    assert fuse(confused, 4).tolist() == [0, 0, 1, 2, 3]
    assert len(set(fuse(confused, 2).tolist())) == 2


@pytest.mark.parametrize("left", [1, 5, 15, 20])
def test_classes_after_fusion_are_numbered_without_gaps(left: int) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.full(20, 0.3), size=300)
    fusion = fuse(probabilities, left)
    assert fusion.shape == (20,)
    assert set(fusion.tolist()) == set(range(left))


def test_empty_classes_are_fused_too() -> None:
    confused = pictures((0, 1, 5), (1, 0, 5), classes=6)
    assert set(fuse(confused, 3).tolist()) == {0, 1, 2}


def test_nothing_to_fuse() -> None:
    assert fuse(pictures((0, 1, 3), (1, 2, 3), classes=3), 3).tolist() == [0, 1, 2]


def test_classes_nobody_uses_are_given_up_first() -> None:
    """SCAN often leaves some of its 20 classes empty; then the five fusions need not merge classes that are in use."""
    used = [(k, (k + 1) % 8, 10) for k in range(8)]
    probabilities = pictures(*used, classes=20)
    classes, _ = cell_classes(probabilities, fuse(probabilities, 15))
    assert len(set(classes.tolist())) == 8
