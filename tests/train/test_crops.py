"""A labelled cohort becomes bags: every pixel, order and label by value, every bad row named."""

import csv
import datetime as dt
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from infer.errors import CohortError, UsageError
from infer.images import read_crop
from tests.synthetic import REFERENCE_DATE, SyntheticPatient, make_patients, write_cohort
from tests.train.bags import make_bags
from train.crops import CROP_SIZE, Bags, cache_crops, load_crops

PATIENTS = make_patients(12, seed=3, images=(2, 4), malignant_share=0.5)
TABLE = "clinical_annotation.csv"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "cohort"
    write_cohort(folder, PATIENTS, seed=3, size=120)
    return folder


@pytest.fixture
def cohort(drawn: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(drawn, tmp_path / "cohort"))


def change(folder: Path, patient_id: str, column: str, value: str) -> None:
    """Write another value into a cell of the table."""
    with (folder / TABLE).open(newline="") as file:
        rows = list(csv.reader(file))
    line = next(row for row in rows if row[1] == patient_id)
    line[rows[0].index(column)] = value
    with (folder / TABLE).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def cached(folder: Path, run: Path, date: dt.date | None = REFERENCE_DATE, date_format: str | None = None) -> Bags:
    return cache_crops(folder, run, date, date_format)


def check_bags(bags: Bags, folder: Path, patients: list[SyntheticPatient]) -> None:
    """All of it against the files, read one by one."""
    assert bags.patient_ids == [patient.patient_id for patient in patients]
    assert bags.labels.tolist() == [patient.label for patient in patients]
    root = folder.resolve()
    expected, names, start = [], [], 0
    for index, patient in enumerate(patients):
        files = sorted(path.name for path in (folder / patient.patient_id).iterdir())
        assert bags.offsets[index] == start
        start += len(files)
        names += files
        expected += [read_crop(folder / patient.patient_id / name, root, CROP_SIZE) for name in files]
    assert bags.offsets[-1] == start
    assert bags.image_names == names
    assert np.array_equal(bags.crops.numpy(), np.stack(expected))


def test_bags_by_value(drawn: Path, tmp_path: Path) -> None:
    bags = cached(drawn, tmp_path / "run")
    check_bags(bags, drawn, PATIENTS)
    for row, patient in zip(bags.clinical, PATIENTS, strict=True):
        age = (REFERENCE_DATE - patient.birth_date).days / 365.25
        np.testing.assert_allclose(row, [patient.sex == "F", patient.lymph_count, age], rtol=1e-6)
    assert bags.crops.dtype == torch.uint8
    assert bags.facts["reference_date"] == "2019-07-01"
    assert (tmp_path / "run/crops/rejected.csv").read_text().splitlines() == ["patient_id,image,reason"]


def test_order_is_the_tables(cohort: Path, tmp_path: Path) -> None:
    lines = (cohort / TABLE).read_text().splitlines()
    (cohort / TABLE).write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    check_bags(cached(cohort, tmp_path / "run"), cohort, PATIENTS[::-1])


def test_ids_that_look_like_numbers_keep_their_zeros(cohort: Path, tmp_path: Path) -> None:
    (cohort / "S001").rename(cohort / "007")
    change(cohort, "S001", "ID", "007")
    bags = cached(cohort, tmp_path / "run")
    assert bags.patient_ids[0] == "007"
    assert bags.offsets[1] == len(PATIENTS[0].kinds)


def test_unknown_labels_are_left_out_and_need_no_folder(cohort: Path, tmp_path: Path) -> None:
    for patient_id in ("S002", "S009"):
        change(cohort, patient_id, "LABEL", "-1")
        shutil.rmtree(cohort / patient_id)
    change(cohort, "S009", "LYMPH_COUNT", "")  # nor a count
    kept = [patient for patient in PATIENTS if patient.patient_id not in ("S002", "S009")]
    check_bags(cached(cohort, tmp_path / "run"), cohort, kept)


def test_without_any_date_ages_cannot_be_taken(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"clinical_annotation\.csv: has no SAMPLE_DATE.*--reference-date"):
        cached(drawn, tmp_path / "run", None)


def test_sample_dates_stand_in_for_the_reference_date(cohort: Path, tmp_path: Path) -> None:
    lines = (cohort / TABLE).read_text().splitlines()
    rows = [f"{line},7/1/{2010 + number}" for number, line in enumerate(lines[1:])]
    (cohort / TABLE).write_text("\n".join([lines[0] + ",SAMPLE_DATE", *rows]) + "\n")
    bags = cached(cohort, tmp_path / "run", None)
    ages = [(dt.date(2010 + n, 7, 1) - p.birth_date).days / 365.25 for n, p in enumerate(PATIENTS)]
    np.testing.assert_allclose(bags.clinical[:, 2], ages, rtol=1e-6)
    assert bags.facts["reference_date"] == "SAMPLE_DATE"


def test_without_labels(cohort: Path, tmp_path: Path) -> None:
    table = cohort / TABLE
    table.write_text(table.read_text().replace("LABEL", "CLASS"))
    with pytest.raises(CohortError, match=r"clinical_annotation\.csv: has no column LABEL"):
        cached(cohort, tmp_path / "run")


def test_all_bad_rows_are_named_at_once(cohort: Path, tmp_path: Path) -> None:
    change(cohort, "S003", "LABEL", "2")
    change(cohort, "S005", "LABEL", "")
    change(cohort, "S007", "LYMPH_COUNT", "11200")
    change(cohort, "S008", "DOB", "")
    with pytest.raises(CohortError) as caught:
        cached(cohort, tmp_path / "run")
    message = str(caught.value)
    assert "line 4 (S003): LABEL is none of 1, 0, -1" in message
    assert "line 6 (S005): LABEL is none of 1, 0, -1" in message
    assert "line 8 (S007): count_implausible" in message
    assert "line 9 (S008): birth_date_missing" in message
    assert message.count("line ") == 6  # four rows, two of which name their line again
    assert not (tmp_path / "run/crops/cohort.json").exists()


def test_a_patient_that_stands_twice_is_named_whatever_its_label(cohort: Path, tmp_path: Path) -> None:
    change(cohort, "S003", "LABEL", "-1")
    change(cohort, "S004", "ID", "S003")
    with pytest.raises(CohortError, match=r"line 4 \(S003\): id_duplicate"):
        cached(cohort, tmp_path / "run")


def test_fewer_than_five_of_a_class(cohort: Path, tmp_path: Path) -> None:
    for patient in [patient for patient in PATIENTS if patient.label == 0][:2]:
        change(cohort, patient.patient_id, "LABEL", "-1")
    with pytest.raises(CohortError, match="fewer than 5 reactive patients"):
        cached(cohort, tmp_path / "run")


def test_a_missing_folder_is_named(cohort: Path, tmp_path: Path) -> None:
    shutil.rmtree(cohort / "S004")
    with pytest.raises(CohortError, match=r"S004: a labelled patient's folder cannot be read"):
        cached(cohort, tmp_path / "run")


def test_a_folder_that_links_out_of_the_cohort_is_refused(cohort: Path, tmp_path: Path) -> None:
    (cohort / "S004").rename(tmp_path / "elsewhere")
    (cohort / "S004").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CohortError, match=r"S004: links out of the cohort"):
        cached(cohort, tmp_path / "run")


def test_an_unusable_picture_costs_that_picture_only(cohort: Path, tmp_path: Path) -> None:
    broken, small = cohort / "S002/000000.jpg", cohort / "S006/000001.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    Image.new("RGB", (100, 100)).save(small)
    bags = cached(cohort, tmp_path / "run")
    rejected = pd.read_csv(tmp_path / "run/crops/rejected.csv")
    assert rejected[["patient_id", "image"]].to_numpy().tolist() == [["S002", "000000.jpg"], ["S006", "000001.jpg"]]
    assert [reason.partition(":")[0] for reason in rejected["reason"]] == ["undecodable", "too_small"]
    broken.unlink()
    small.unlink()
    check_bags(bags, cohort, PATIENTS)
    assert not list((tmp_path / "run/crops").glob("*.part*"))


def test_a_patient_without_usable_picture_is_named(cohort: Path, tmp_path: Path) -> None:
    for path in (cohort / "S002").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CohortError, match=r"no usable picture: S002\."):
        cached(cohort, tmp_path / "run")
    assert not (tmp_path / "run/crops/cohort.json").exists()


def test_the_cache_is_taken_again(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached(cohort, tmp_path / "run")
    monkeypatch.setattr("train.crops.read_crop", lambda *_: pytest.fail("decoded again"))
    again = cached(cohort, tmp_path / "run")
    assert np.array_equal(again.crops.numpy(), first.crops.numpy())
    assert again.image_names == first.image_names
    assert np.array_equal(again.clinical, first.clinical)


def test_another_table_or_date_is_refused(cohort: Path, tmp_path: Path) -> None:
    cached(cohort, tmp_path / "run")
    with pytest.raises(UsageError, match="run: was made from another table, other pictures or dates"):
        cached(cohort, tmp_path / "run", dt.date(2020, 1, 1))
    change(cohort, "S001", "LYMPH_COUNT", "5.5")
    with pytest.raises(UsageError, match="run: was made from another table, other pictures or dates"):
        cached(cohort, tmp_path / "run")


def test_another_date_format_is_refused(cohort: Path, tmp_path: Path) -> None:
    for patient in PATIENTS:
        change(cohort, patient.patient_id, "DOB", f"0{1 + len(patient.kinds)}-01-1950")
    first = cached(cohort, tmp_path / "run")  # d-m-Y
    fresh = cached(cohort, tmp_path / "other", date_format="%m-%d-%Y")
    assert not np.allclose(first.clinical, fresh.clinical)
    with pytest.raises(UsageError, match="other pictures or dates"):
        cached(cohort, tmp_path / "run", date_format="%m-%d-%Y")


@pytest.mark.parametrize("change_pictures", ["added", "removed", "written"])
def test_other_pictures_are_refused(cohort: Path, tmp_path: Path, change_pictures: str) -> None:
    cached(cohort, tmp_path / "run")
    picture = cohort / "S001/000000.jpg"
    if change_pictures == "added":
        shutil.copy(picture, cohort / "S001/more.jpg")
    elif change_pictures == "removed":
        picture.unlink()
    else:
        shutil.copy(cohort / "S002/000000.jpg", picture)
    with pytest.raises(UsageError, match="other pictures or dates"):
        cached(cohort, tmp_path / "run")


def test_a_run_inside_the_cohort_is_refused(cohort: Path) -> None:
    before = sorted(cohort.rglob("*"))
    with pytest.raises(UsageError, match="lies inside the cohort"):
        cached(cohort, cohort / "run")
    assert sorted(cohort.rglob("*")) == before


def test_a_run_without_crops(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no crops yet"):
        load_crops(tmp_path)


def test_owners_and_ranges_by_hand() -> None:
    bags = make_bags([0, 1, 0], [2, 1, 3])
    assert bags.patient_of_image().tolist() == [0, 0, 1, 2, 2, 2]
    assert [tuple(map(int, pair)) for pair in bags.ranges()] == [(0, 2), (2, 3), (3, 6)]


def test_sampling_takes_a_patients_own_pictures_and_no_more_than_asked() -> None:
    bags, rng = make_bags([0, 1, 0], [20, 3, 30]), np.random.default_rng(0)
    patients = np.array([2, 1])
    everything = bags.sample(patients, 0, rng)
    assert [part.tolist() for part in everything] == [list(range(23, 53)), [20, 21, 22]]
    first, second = bags.sample(patients, 8, rng)
    assert second.tolist() == [20, 21, 22]
    assert len(set(first.tolist())) == 8
    assert set(first.tolist()) <= set(range(23, 53))
    assert set(bags.sample(patients, 8, rng)[0].tolist()) != set(first.tolist())


def test_mean_colours_by_hand() -> None:
    bags = make_bags([0, 1], [3, 2], size=5)
    pixels = bags.crops.numpy().astype(np.float64)
    expected = [pixels[:3].mean(axis=(0, 1, 2)), pixels[3:].mean(axis=(0, 1, 2))]
    np.testing.assert_allclose(bags.mean_colours(), expected, rtol=1e-5)


def test_some_patients_bags_are_theirs() -> None:
    bags = make_bags([0, 1, 1, 0], [2, 3, 1, 2])
    some = bags.of(np.array([1, 3]))
    assert some.patient_ids == ["p1", "p3"]
    assert torch.equal(some.crops, torch.cat([bags.crops[2:5], bags.crops[6:8]]))
    assert some.offsets.tolist() == [0, 3, 5]
    assert some.image_names == ["0.png", "1.png", "2.png", "0.png", "1.png"]
    assert some.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(some.clinical, bags.clinical[[1, 3]])
