import csv
import dataclasses
import datetime
import functools
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.synthetic import (
    MORPHOLOGIES,
    REFERENCE_DATE,
    SyntheticPatient,
    draw_cell,
    main,
    make_patients,
    write_cohort,
)

DRAWINGS = 30


@functools.cache
def drawings(kind: int) -> npt.NDArray[np.uint8]:
    """(DRAWINGS, 224, 224, 3)"""
    return np.stack([draw_cell(kind, np.random.default_rng([7, kind, number])) for number in range(DRAWINGS)])


def nucleus_mask(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Dark violet: little green. (n, h, w, 3) -> (n, h, w)"""
    return pictures[..., 1] < 95


def cell_mask(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Nucleus and cytoplasm: more blue than red, unlike red cells and background. (n, h, w, 3) -> (n, h, w)"""
    return pictures[..., 2].astype(int) > pictures[..., 0].astype(int) + 5


def nucleus_area(kind: int) -> float:
    return float(nucleus_mask(drawings(kind)).sum(axis=(1, 2)).mean())  # px


def cytoplasm_to_nucleus(kind: int) -> float:
    nucleus = nucleus_mask(drawings(kind)).sum(axis=(1, 2))
    return float((cell_mask(drawings(kind)).sum(axis=(1, 2)) / nucleus - 1).mean())


def nucleus_extremes(kind: int) -> float:
    """Ratio of largest to smallest distance of the nucleus's edge from its centre of mass, mean over the drawings."""
    ratios = []
    for mask in nucleus_mask(drawings(kind)):
        y, x = np.nonzero(mask)
        angle = ((np.arctan2(y - y.mean(), x - x.mean()) + np.pi) / (2 * np.pi) * 36).astype(int) % 36
        reach = np.zeros(36)
        np.maximum.at(reach, angle, np.hypot(y - y.mean(), x - x.mean()))
        ratios.append(reach.max() / reach.min())
    return float(np.mean(ratios))


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path) -> list[list[str]]:
    with (folder / "clinical_annotation.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def share_of_clonal_kinds(patients: list[SyntheticPatient], label: int) -> float:
    return float(np.mean([np.mean([kind >= 2 for kind in p.kinds]) for p in patients if p.label == label]))


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_cohort(tmp_path / name, make_patients(3, seed=5, images=(2, 4)), seed=5)
    write_cohort(tmp_path / "other", make_patients(3, seed=6, images=(2, 4)), seed=6)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["S001/000000.jpg"] != files(tmp_path / "other")["S001/000000.jpg"]


def test_pictures_do_not_depend_on_other_patients(tmp_path: Path) -> None:
    first, second = make_patients(2, seed=1, images=(3, 3))
    write_cohort(tmp_path / "both", [first, second], seed=1)
    write_cohort(tmp_path / "alone", [first], seed=1)
    write_cohort(tmp_path / "changed", [dataclasses.replace(first, kinds=(2,) * 8), second], seed=1)
    both, alone, changed = (files(tmp_path / name) for name in ("both", "alone", "changed"))
    for number in range(3):
        assert both[f"S001/{number:06d}.jpg"] == alone[f"S001/{number:06d}.jpg"]
        assert both[f"S002/{number:06d}.jpg"] == changed[f"S002/{number:06d}.jpg"]


def test_no_two_pictures_are_the_same(tmp_path: Path) -> None:
    patients = [dataclasses.replace(p, kinds=(0, 0, 0)) for p in make_patients(3, seed=0)]
    write_cohort(tmp_path / "c", patients, seed=0)
    pictures = [content for name, content in files(tmp_path / "c").items() if name.endswith(".jpg")]
    assert len(pictures) == 9
    assert len(set(pictures)) == 9


@pytest.mark.parametrize("size", [112, 128, 223, 224, 300])
def test_shape_at_every_size(size: int) -> None:
    picture = draw_cell(1, np.random.default_rng(0), size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8


def test_unknown_kind_and_small_size_are_refused() -> None:
    with pytest.raises(ValueError, match="kind 4"):
        draw_cell(4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="size 111"):
        draw_cell(0, np.random.default_rng(0), 111)


@pytest.mark.parametrize("kind", range(len(MORPHOLOGIES)))
def test_sizes_are_plausible(kind: int) -> None:
    diameter = 2 * np.sqrt(nucleus_area(kind) / np.pi)
    assert 50 <= diameter <= 80
    outside = nucleus_mask(drawings(kind)) | cell_mask(drawings(kind))
    outside[:, 56:168, 56:168] = False
    assert not outside.any()  # the whole lymphocyte is in the central 112 x 112


def test_kinds_differ_in_size() -> None:
    assert nucleus_area(2) > 1.4 * nucleus_area(0)
    assert nucleus_area(2) > 1.1 * nucleus_area(3)


def test_kinds_differ_in_cytoplasm() -> None:
    assert cytoplasm_to_nucleus(1) > 2 * cytoplasm_to_nucleus(0) > 0


def test_kinds_differ_in_outline() -> None:
    assert nucleus_extremes(2) > nucleus_extremes(0) + 0.2


def test_kinds_differ_in_texture() -> None:
    within = [float(drawings(kind)[:, 100:124, 100:124, 1].std(axis=(1, 2)).mean()) for kind in (0, 3)]
    assert within[1] > 1.5 * within[0]


def test_stain_moves_the_whole_picture() -> None:
    plain = draw_cell(0, np.random.default_rng(3)).astype(int)
    stained = draw_cell(0, np.random.default_rng(3), stain=np.array([-20.0, 0.0, 0.0])).astype(int)
    moved = (stained - plain).mean(axis=(0, 1))
    np.testing.assert_allclose(moved, [-20, 0, 0], atol=1.5)


@pytest.mark.parametrize(
    ("n", "share", "malignant"), [(6, 0.6, 4), (10, 0.6, 6), (5, 0.0, 0), (5, 1.0, 5), (1, 0.6, 1)]
)
def test_label_counts(n: int, share: float, malignant: int) -> None:
    patients = make_patients(n, seed=2, malignant_share=share)
    assert sum(p.label for p in patients) == malignant
    assert [p.patient_id for p in patients] == [f"S{i:03d}" for i in range(1, n + 1)]


def test_labels_are_shuffled() -> None:
    labels = [p.label for p in make_patients(40, seed=0)]
    assert labels != sorted(labels)
    assert labels != sorted(labels, reverse=True)
    assert labels != [p.label for p in make_patients(40, seed=1)]


def test_number_of_pictures_covers_the_range() -> None:
    assert {len(p.kinds) for p in make_patients(100, seed=0, images=(2, 5))} == {2, 3, 4, 5}


def test_mixture_and_clinical_values_depend_on_the_label() -> None:
    patients = make_patients(200, seed=0)
    assert share_of_clonal_kinds(patients, 1) > share_of_clonal_kinds(patients, 0) + 0.3
    for label in (0, 1):  # overlap: no single picture reveals its patient's label
        assert {kind for p in patients if p.label == label for kind in p.kinds} == {0, 1, 2, 3}
    by_label = [[p for p in patients if p.label == label] for label in (0, 1)]
    counts = [np.array([p.lymph_count for p in group]) for group in by_label]
    ages = [np.array([(REFERENCE_DATE - p.birth_date).days / 365.25 for p in group]) for group in by_label]
    for reactive, malignant in (counts, ages):
        assert np.median(malignant) > np.median(reactive)
        assert malignant.min() < reactive.max()
    assert all(18 <= age <= 99 for group in ages for age in group)


def test_impossible_cohorts_are_refused() -> None:
    for n, images, share in ((0, (1, 2), 0.5), (3, (4, 2), 0.5), (3, (0, 2), 0.5), (3, (1, 2), 1.1)):
        with pytest.raises(ValueError, match="cannot make"):
            make_patients(n, 0, images, share)


def test_table_and_folders(tmp_path: Path) -> None:
    patients = [
        SyntheticPatient("S001", 1, "M", datetime.date(1931, 1, 27), 122.6, (2, 2)),
        SyntheticPatient("S002", 0, "F", datetime.date(1946, 12, 9), 5.0, (0, 1, 3)),
    ]
    write_cohort(tmp_path / "train", patients, seed=0)
    assert rows(tmp_path / "train") == [
        ["", "ID", "LABEL", "GENDER", "DOB", "LYMPH_COUNT"],
        ["0", "S001", "1", "M", "1/27/1931", "122.6"],
        ["1", "S002", "0", "F", "12/9/1946", "5.0"],
    ]
    write_cohort(tmp_path / "score", patients, seed=0, labels=False, size=128)
    assert rows(tmp_path / "score")[1] == ["0", "S001", "M", "1/27/1931", "122.6"]
    assert sorted(files(tmp_path / "score")) == [
        "S001/000000.jpg",
        "S001/000001.jpg",
        "S002/000000.jpg",
        "S002/000001.jpg",
        "S002/000002.jpg",
        "clinical_annotation.csv",
    ]
    with Image.open(tmp_path / "score/S002/000002.jpg") as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (128, 128))


def test_made_patients_fit_the_contract(tmp_path: Path) -> None:
    write_cohort(tmp_path / "c", make_patients(12, seed=3, images=(1, 1)), seed=3)
    for index, (number, patient_id, label, sex, born, count) in enumerate(rows(tmp_path / "c")[1:]):
        assert (number, patient_id) == (str(index), f"S{index + 1:03d}")
        assert label in ("0", "1")
        assert sex in ("M", "F")
        assert re.fullmatch(r"[1-9]\d?/[1-9]\d?/\d{4}", born)
        assert re.fullmatch(r"\d+\.\d", count)


def test_command(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    arguments = [str(folder), "--patients", "3", "--seed", "4", "--images", "2", "3"]
    result = CliRunner().invoke(main, [*arguments, "--no-labels"])
    assert result.exit_code == 0
    assert result.output == f"{folder}: 3 patients, {len(files(folder)) - 1} pictures\n"
    assert rows(folder)[0] == ["", "ID", "GENDER", "DOB", "LYMPH_COUNT"]
    write_cohort(tmp_path / "same", make_patients(3, 4, (2, 3)), seed=4, labels=False)
    assert files(folder) == files(tmp_path / "same")

    before = files(folder)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert f"{folder} is not empty: name a new folder" in result.output
    assert files(folder) == before


def test_command_takes_an_empty_folder_and_refuses_a_turned_range(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path), "--patients", "1", "--images", "3", "2"])
    assert result.exit_code == 2
    assert "--images 3 2: the fewest come first" in result.output
    result = CliRunner().invoke(main, [str(tmp_path), "--patients", "1", "--images", "1", "1"])
    assert result.exit_code == 0
    assert (tmp_path / "S001/000000.jpg").is_file()
