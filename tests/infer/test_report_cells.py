"""Which cells a page shows, and their pictures."""

import base64
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infer.pictures.decode import RejectedImage
from infer.pictures.look import DecodedPicture, look
from infer.report.cells import choose
from infer.report.crops import CHANGED, GONE, Shown, show
from infer.scoring.result import ImageResult
from tests.infer.report_pages import image, result

CROP = np.random.default_rng(0).integers(100, 156, (112, 112, 3)).astype(np.uint8)
EXPECTED = (13, 14, 16, 17, 19, 22, 30, 32, 35, 39, 40, 47)
CONTENT = hashlib.sha256(b"a picture").hexdigest()


def names(cells: object) -> list[str]:
    return [cell.name for cell in cells]  # type: ignore[attr-defined]


def test_the_twelve_that_speak_most_either_way_and_twelve_of_the_others() -> None:
    # In the files' order: 0 speaks most for reactive, 59 most for malignant.
    chosen = choose(result([image(number, (number - 29.5) / 100) for number in range(60)]))
    assert names(chosen.towards) == [f"{number:03}.jpg" for number in range(59, 47, -1)]
    assert names(chosen.against) == [f"{number:03}.jpg" for number in range(12)]
    assert len(chosen.random) == 12
    assert set(names(chosen.random)) <= {f"{number:03}.jpg" for number in range(12, 48)}
    assert names(chosen.random) == sorted(names(chosen.random))
    assert len(set(names(chosen.all))) == 36
    assert chosen.used == 60


def test_random_cells_are_always_the_same_and_others_for_another_patient() -> None:
    images = [image(number, (number - 29.5) / 100) for number in range(60)]
    drawn = {patient: names(choose(result(images, patient_id=patient)).random) for patient in ("P1", "P2")}
    assert names(choose(result(images)).random) == drawn["P1"] != drawn["P2"]
    # By value: no version of Python and no machine may draw others.
    assert drawn["P1"] == [f"{number:03}.jpg" for number in EXPECTED]


def test_a_cell_stands_only_where_its_influence_says() -> None:
    chosen = choose(result([image(1, 0.5), image(2, 0.0), image(3, 0.25)]))
    assert (names(chosen.towards), names(chosen.against)) == (["001.jpg", "003.jpg"], [])
    assert names(chosen.random) == ["002.jpg"]


def test_a_patient_of_one_picture_has_no_influence() -> None:
    chosen = choose(result([image(1, None)]))
    assert (chosen.towards, chosen.against, names(chosen.random)) == ((), (), ["001.jpg"])


def test_rejected_pictures_are_not_shown_and_contents_stay_with_theirs() -> None:
    chosen = choose(result([image(1, 0.1), ImageResult("2.jpg", "empty: x"), image(3, -0.1)]))
    assert [(cell.name, cell.content) for cell in chosen.all] == [("001.jpg", "0" * 16), ("003.jpg", f"{1:016x}")]


def test_a_picture_that_is_still_the_same_is_shown() -> None:
    shown = show(DecodedPicture(CONTENT, CROP), CONTENT[:16])
    head, _, data = shown.uri.partition(",")
    assert head == "data:image/jpeg;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), np.int16)
    assert pixels.shape == (112, 112, 3)
    assert np.abs(pixels - CROP).mean() < 12


@pytest.mark.parametrize("crop", [CROP, RejectedImage("damaged: x")])
def test_another_picture_of_the_same_name_is_not_shown(crop: object) -> None:
    assert show(DecodedPicture(CONTENT, crop), "0" * 16) == Shown(missing=CHANGED)  # type: ignore[arg-type]


def test_an_unchecked_picture_has_the_same_pixels_and_digest(pristine: Path) -> None:
    """Pages are made of these."""
    for path in sorted(pristine.rglob("*.jpg")):
        checked, again = look(path, pristine.resolve(), 112), look(path, pristine.resolve(), 112, checked=False)
        assert again.content == checked.content
        np.testing.assert_array_equal(np.asarray(again.crop), np.asarray(checked.crop))


def test_a_picture_that_is_gone_is_not_shown() -> None:
    for reason in ("unreadable: No such file or directory", "[Errno 5] Input/output error", ""):
        assert show(DecodedPicture(reason, OSError(5, "x")), "0" * 16) == Shown(missing=GONE)
