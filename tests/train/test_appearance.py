"""What is measured on the outlined cell, on painted cells whose measures are known."""

import numpy as np
import pytest

from infer.bundle.appearance import DENSITY, MEASURED, NUCLEUS, SIZE, UNEVENNESS
from infer.pictures.measure import measured
from tests.train.test_segmentation import CYTOPLASM, RED_CELL, SLIDE, Pixels, disc, drawn, paint
from tests.train.test_segmentation import NUCLEUS as PURPLE
from train.data.appearance import of_cell, roundness
from train.data.bags import CROP_SIZE

DARK, PALE = (50, 20, 90), (110, 70, 150)


def painted(radius: float = 36, nucleus: float = 24, colour: tuple[int, int, int] = PURPLE) -> Pixels:
    return paint((disc(56, 56, radius), CYTOPLASM), (disc(56, 56, nucleus), colour))


def test_sizes_are_areas() -> None:
    for radius, nucleus in ((36, 24), (44, 24), (36, 30)):
        found = of_cell(painted(radius, nucleus))
        assert found[SIZE] == pytest.approx(np.pi * radius**2 / CROP_SIZE**2, rel=0.06)
        assert found[NUCLEUS] == pytest.approx(nucleus**2 / radius**2, rel=0.06)
        assert list(found) == list(MEASURED)


def test_density_is_that_of_the_nucleus_in_green_light() -> None:
    """Natural logarithm of the slide's green over the nucleus's, within what smoothing and noise move."""
    for colour in (DARK, PURPLE, PALE):
        expected = np.log(SLIDE[1] / colour[1])
        assert of_cell(painted(colour=colour))[DENSITY] == pytest.approx(expected, rel=0.08)


def test_a_nucleus_of_two_colours_is_less_even_than_one_of_one() -> None:
    even = painted()
    halves = paint((disc(56, 56, 36), CYTOPLASM), (disc(56, 56, 24), DARK), (disc(56, 66, 12), PURPLE))
    assert of_cell(halves)[UNEVENNESS] > 1.3 * of_cell(even)[UNEVENNESS]


def test_red_cells_around_do_not_enlarge_the_cell() -> None:
    """They do in the measure that scoring takes, for which that does not matter."""
    cell = [(disc(56, 56, 26), CYTOPLASM), (disc(56, 56, 21), PURPLE)]
    around = [(disc(x, y, 20), RED_CELL) for x, y in ((8, 20), (104, 30), (20, 104), (96, 100))]
    alone, crowded = paint(*cell), paint(*around, *cell)
    assert of_cell(crowded)[SIZE] == pytest.approx(of_cell(alone)[SIZE], rel=0.05)
    assert of_cell(crowded)[NUCLEUS] == pytest.approx(of_cell(alone)[NUCLEUS], rel=0.05)
    assert measured(crowded)["cell_area"] > 1.3 * measured(alone)["cell_area"]


def test_granules_and_a_dark_rim_are_no_nucleus() -> None:
    rim = disc(56, 56, 40) & ~disc(56, 56, 38)
    granules = [(disc(x, y, 1.5), PURPLE) for x, y in ((30, 56), (82, 56), (56, 84))]
    found = of_cell(paint((disc(56, 56, 38), CYTOPLASM), (rim, PURPLE), (disc(56, 56, 20), PURPLE), *granules))
    assert found[NUCLEUS] == pytest.approx(20**2 / 40**2, rel=0.1)


def test_roundness_of_known_shapes() -> None:
    assert roundness(disc(56, 56, 40)) == pytest.approx(1, abs=0.005)
    box = np.zeros((CROP_SIZE, CROP_SIZE), np.bool_)
    box[20:80, 20:80] = True
    assert roundness(box) == pytest.approx(3 / np.pi, rel=1e-9)  # of any square, however large its pixels
    box[:] = False
    box[40:70, 10:100] = True  # 1 : 3
    assert roundness(box) == pytest.approx(12 * 3 / (2 * np.pi * 10), rel=1e-9)


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_turning_and_flipping_a_picture_changes_nothing(kind: int) -> None:
    picture, outline = drawn(kind, 0)
    found = of_cell(picture)
    assert found[SIZE] == pytest.approx(outline.mean(), rel=0.1)
    for other in (np.rot90(picture), picture[:, ::-1], picture.transpose(1, 0, 2)):
        assert of_cell(np.ascontiguousarray(other)) == pytest.approx(found, rel=1e-9)


def test_a_picture_without_a_cell_has_no_measures() -> None:
    assert of_cell(np.full((CROP_SIZE, CROP_SIZE, 3), 230, np.uint8)) == {}
