"""A picture without a cell in its middle is rejected; one with a cell never is, in whatever stain or light."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from infer.pictures.measure import CENTRE, has_cell, measured
from tests.infer.runs import TINY, replace_picture, score
from tests.synthetic import draw_cell

Pixels = npt.NDArray[np.uint8]
SIZE = 112


def disc(radius: float, inside: int, outside: int = 220, at: tuple[int, int] = (0, 0)) -> Pixels:
    """A round spot on an even background: (112, 112, 3)."""
    across = np.arange(SIZE) - (SIZE - 1) / 2
    spot = np.hypot(across[:, None] - at[0], across - at[1]) <= radius
    return np.repeat(np.where(spot, inside, outside).astype(np.uint8)[..., None], 3, axis=-1)


def is_cell(crop: Pixels) -> bool:
    return has_cell(measured(crop))


def contrast_of(crop: Pixels) -> float:
    return measured(crop)[CENTRE]


def png(crop: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "PNG")
    return file.getvalue()


def empty_pictures() -> dict[str, Pixels]:
    random = np.random.RandomState(0)
    ramp = np.repeat(np.linspace(60, 240, SIZE).astype(np.uint8)[None, :, None], SIZE, axis=0)
    return {
        "white": np.full((SIZE, SIZE, 3), 255, np.uint8),
        "black": np.zeros((SIZE, SIZE, 3), np.uint8),
        "grey": np.full((SIZE, SIZE, 3), 128, np.uint8),
        "noise": random.randint(0, 256, (SIZE, SIZE, 3)).astype(np.uint8),
        "vignette": np.repeat(ramp, 3, axis=-1),
        "cell at the edge": disc(25, 60, at=(45, 45)),
        "hole in the middle": disc(20, 250, 80),
        "pale spot": disc(25, 190),
    }


@pytest.mark.parametrize("name", empty_pictures())
def test_no_cell(name: str) -> None:
    assert not is_cell(empty_pictures()[name])


@pytest.mark.parametrize("kind", range(4))
def test_drawn_cells_of_every_kind_are_cells(kind: int) -> None:
    for seed in range(25):
        crop = draw_cell(kind, np.random.default_rng(seed), SIZE)
        assert is_cell(crop)
        assert is_cell(np.repeat(crop.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8))  # grey
        assert is_cell(crop[..., ::-1])  # another stain: red and blue exchanged
        assert is_cell((crop * 0.5).astype(np.uint8))  # half the light


def test_contrast_by_hand() -> None:
    """A spot of 60 on 220: log(221 / 61) + nothing at the edge."""
    assert contrast_of(disc(30, 60)) == pytest.approx(np.log(221 / 61), abs=1e-12)


def test_contrast_does_not_change_when_the_picture_is_turned() -> None:
    crop = draw_cell(1, np.random.default_rng(3), SIZE)
    turned = [contrast_of(np.rot90(crop, turns)) for turns in range(4)] + [contrast_of(crop[:, ::-1])]
    assert turned == pytest.approx([turned[0]] * 5, abs=1e-12)


def test_a_patient_of_blank_pictures_fails_and_says_so(cohort: Path, tmp_path: Path) -> None:
    """28 of 33 such patients were called malignant or reactive."""
    for path in (cohort / "S002").iterdir():
        replace_picture(path, png(np.full((SIZE, SIZE, 3), 255, np.uint8)))
    outcome = score(cohort, tmp_path / "out", bundle=TINY)
    assert outcome.code == 3
    row = outcome.predictions["S002"]
    assert (row["status"], row["decision"], row["probability_malignant"]) == ("failed", "", "")
    assert row["reason"].startswith("no_usable_image")
    of_patient = [image for image in outcome.images if image["patient_id"] == "S002"]
    assert {image["reason"] for image in of_patient} == {"no_cell: no cell in the middle of the picture"}


def test_one_empty_picture_is_left_out_and_the_others_count(cohort: Path, tmp_path: Path) -> None:
    first = sorted((cohort / "S001").iterdir())[0]
    replace_picture(first, png(np.full((SIZE, SIZE, 3), 255, np.uint8)))
    outcome = score(cohort, tmp_path / "out", bundle=TINY)
    assert outcome.code == 0
    assert outcome.predictions["S001"]["images_rejected"] == "1"
    assert [image["image"] for image in outcome.images if image["reason"].startswith("no_cell")] == [first.name]
