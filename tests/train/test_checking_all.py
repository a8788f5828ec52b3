"""`train all` begins with the check: it stops before anything is trained, and decodes nothing twice."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from infer.pictures.decode import decode_crop
from tests.train.checked import cohort, edit
from tests.train_fixtures import DATE, train
from train.cli import whole
from train.members import registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cohort(tmp_path / "patients")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A picture is added whenever one is decoded; nothing is trained."""
    found: list[int] = []

    def counting(*arguments: Any) -> Any:
        found.append(1)
        return original(*arguments)

    original = decode_crop
    monkeypatch.setattr("train.data.crops.decode_crop", counting)
    monkeypatch.setattr("train.checking.summaries.decode_crop", counting)
    monkeypatch.setattr(registry, "MEMBERS", [])
    for later in ("embed_pictures", "fit_ensemble", "write_page"):
        monkeypatch.setattr(whole, later, lambda *_: None)
    return found


def test_a_clean_cohort_is_decoded_once_and_trained(folder: Path, tmp_path: Path, decoded: list[int]) -> None:
    call = train("all", folder, tmp_path / "run", *DATE)
    assert (call.code, call.errors) == (0, "")
    assert len(decoded) == 120
    assert train("all", folder, tmp_path / "run", *DATE).code == 0
    assert len(decoded) == 120


def test_bad_rows_stop_it_with_all_that_is_wrong(folder: Path, tmp_path: Path, decoded: list[int]) -> None:
    edit(folder, ",S004,", ",,")
    for path in (folder / "S006").iterdir():
        path.write_bytes(b"no picture")
    shutil.copy(folder / "S008/000000.jpg", folder / "S009/other.jpg")
    call = train("all", folder, tmp_path / "run", *DATE)
    assert call.code == 2
    assert call.errors.startswith("Error: 3 things to correct before training:")
    for part in ("line 5 (): id_missing", "no usable picture: S006.", "S008/000000.jpg and S009/other.jpg"):
        assert part in call.errors
    assert not (tmp_path / "run").exists()


def test_a_shared_picture_stops_it_once_everything_is_decoded(folder: Path, tmp_path: Path, decoded: list[int]) -> None:
    shutil.copy(folder / "S008/000000.jpg", folder / "S009/other.jpg")
    call = train("all", folder, tmp_path / "run", *DATE)
    assert call.code == 2
    assert "2 patients share the same picture" in call.errors
    assert len(decoded) == 121


def test_a_patient_without_a_usable_picture_stops_it(folder: Path, tmp_path: Path, decoded: list[int]) -> None:
    for path in (folder / "S006").iterdir():
        path.write_bytes(b"no picture")
    call = train("all", folder, tmp_path / "run", *DATE)
    assert call.code == 2
    assert "no usable picture: S006." in call.errors


def test_what_is_to_look_at_is_logged(
    folder: Path, tmp_path: Path, decoded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(folder / "S001/000003.jpg", folder / "S001/again.jpg")
    assert train("all", folder, tmp_path / "run", *DATE).code == 0
    assert any("pair of (nearly) the same picture" in record.getMessage() for record in caplog.records)


def test_it_stops_for_a_missing_reference_date_before_it_decodes_for_the_run(
    folder: Path, tmp_path: Path, decoded: list[int]
) -> None:
    call = train("all", folder, tmp_path / "run")
    assert call.code == 2
    assert "ages need --reference-date" in call.errors
    assert not (tmp_path / "run").exists()
