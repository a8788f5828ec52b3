"""Pictures that cannot be used, are alike, or are too few; cohorts are real files."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.checked import checked, cohort, with_topic
from train.checking.duplicates import identical, near
from train.checking.finding import Severity
from train.checking.summaries import Prints, print_of, prints_of

CORRECT, LOOK, FINE = Severity
Pixels = np.ndarray


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cohort(tmp_path / "patients")


def pixels(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def brighter(given: Pixels, by: int) -> Pixels:
    return np.clip(given.astype(np.int16) + by, 0, 255).astype(np.uint8)


def test_unreadable_small_and_other_pictures_are_counted_and_named(folder: Path) -> None:
    (folder / "S001/000000.jpg").write_bytes(b"")
    (folder / "S001/000001.jpg").write_bytes((folder / "S001/000001.jpg").read_bytes()[:900])
    Image.fromarray(pixels(folder / "S002/000000.jpg")[:111]).save(folder / "S002/000000.jpg")
    Image.fromarray(pixels(folder / "S003/000000.jpg")[:120]).save(folder / "S003/000000.jpg")
    found = checked(folder)
    assert found.of(CORRECT) == []
    unusable, few = with_topic(found, "pictures", LOOK)
    assert unusable.what.startswith("3 pictures of 2 patients cannot be used: ")
    assert [text.partition(": ")[0] for text in unusable.concerned] == [
        "S001/000000.jpg", "S001/000001.jpg", "S002/000000.jpg"
    ]  # fmt: skip
    assert "too_small" in unusable.concerned[2]
    assert few.concerned == ("S001: 8", "S002: 9")
    (size,) = with_topic(found, "sizes", LOOK)
    assert size.what == "116 pictures are 128 x 128 pixels, but 1 of 128 x 120"
    assert size.concerned == ("S003: 1 picture",)


def test_a_patient_with_one_picture(folder: Path) -> None:
    for path in sorted((folder / "S004").iterdir())[1:]:
        path.unlink()
    (one,) = with_topic(checked(folder), "pictures", LOOK)
    assert one.concerned == ("S004",)
    (numbers,) = [one for one in with_topic(checked(folder), "pictures", FINE) if "usable pictures" in one.what]
    assert numbers.what == "111 usable pictures; a patient has 1 to 10, median 10"


def test_the_same_pixels_in_another_format_are_the_same_picture(folder: Path) -> None:
    Image.fromarray(pixels(folder / "S001/000003.jpg")).save(folder / "S002/copy.png")
    (one,) = with_topic(checked(folder), "same picture", CORRECT)
    assert one.concerned == ("S001/000003.jpg and S002/copy.png",)


@pytest.mark.parametrize("change", ["quality 60", "brighter", "darker and quality 60"])
def test_a_changed_copy_is_found_in_another_patient(folder: Path, change: str) -> None:
    given = pixels(folder / "S001/000003.jpg")
    given = brighter(given, {"quality 60": 0, "brighter": 20, "darker and quality 60": -30}[change])
    Image.fromarray(given).save(folder / "S002/copy.jpg", quality=60 if "60" in change else 95)
    found = checked(folder)
    assert found.of(CORRECT) == []
    (one,) = with_topic(found, "same picture", LOOK)
    assert one.concerned == ("S001/000003.jpg and S002/copy.jpg",)


def test_copies_within_a_patient_are_to_look_at(folder: Path) -> None:
    shutil.copy(folder / "S001/000003.jpg", folder / "S001/again.jpg")
    (one,) = with_topic(checked(folder), "same picture", LOOK)
    assert one.what == "1 pair of (nearly) the same picture within 1 patient"


def test_an_empty_picture_in_two_patients_does_not_stop_a_training(folder: Path) -> None:
    for name in ("S001", "S002"):
        Image.new("RGB", (128, 128), (240, 230, 220)).save(folder / name / "blank.png")
    found = checked(folder)
    assert found.of(CORRECT) == []
    (one,) = with_topic(found, "same picture", LOOK)
    assert "share an empty picture" in one.what
    assert any("2 pictures without a cell" in other.what for other in found.findings)


def test_drawn_cells_of_different_patients_are_never_taken_for_one(folder: Path) -> None:
    assert with_topic(checked(folder), "same picture", LOOK) == []


def slow_near(prints: Prints) -> list[tuple[int, int]]:
    """Pair by pair, bit by bit."""
    found = []
    for one in range(len(prints.hashes)):
        for other in range(one + 1, len(prints.hashes)):
            bits = bin(int(prints.hashes[one]) ^ int(prints.hashes[other])).count("1")
            by = np.corrcoef(prints.small[one].ravel(), prints.small[other].ravel())[0, 1]
            if bits <= 8 and by >= 0.99 and prints.digests[one] != prints.digests[other]:
                found.append((one, other))
    return found


def test_blocks_find_what_a_slow_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    fields = [
        np.asarray(Image.fromarray(rng.integers(0, 255, (5, 5, 3), np.uint8)).resize((112, 112))) for _ in range(40)
    ]
    copies = [brighter(field // 2 + 30, 9) for field in fields[::3]]
    prints = prints_of(iter([*fields, *copies, fields[5]]))
    monkeypatch.setattr("train.checking.duplicates.ROWS", 7)
    found = sorted(near(prints))
    assert found == slow_near(prints)
    assert {(3 * number, 40 + number) for number in range(14)} <= set(found)
    assert identical(prints) == [(5, 54)]


def test_the_hash_knows_a_picture_compressed_again_and_no_mirrored_one() -> None:
    rng = np.random.default_rng(1)
    field = np.asarray(Image.fromarray(rng.integers(0, 255, (5, 5, 3), np.uint8)).resize((112, 112)))
    file = io.BytesIO()
    Image.fromarray(field).save(file, "JPEG", quality=60)
    again, mirrored = pixels_of(file), np.ascontiguousarray(field[:, ::-1])
    codes = [print_of(one)[1] for one in (field, again, mirrored)]
    assert bin(codes[0] ^ codes[1]).count("1") <= 3
    assert bin(codes[0] ^ codes[2]).count("1") > 8


def pixels_of(file: io.BytesIO) -> Pixels:
    with Image.open(file) as image:
        return np.asarray(image)
