"""A labelled cohort becomes bags: every pixel, order and label by value, every bad row named."""

import csv
import datetime as dt
import errno
import hashlib
import io
import json
import os
import resource
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from export.manifest import picture_sizes, pixel_size
from infer.bundle.manifest import Drift
from infer.cohort.plausible import Range
from infer.errors import CohortError, UsageError
from infer.pictures.decode import decode_crop
from tests.crops import read_crop
from tests.synthetic import REFERENCE_DATE, SyntheticPatient, make_patients, write_cohort
from tests.train.bags import make_bags
from tests.train_fixtures import DATE, train
from train.data.bags import CROP_SIZE, Bags, load_crops
from train.data.crops import CropsError, cache_crops
from train.evaluation.nested.plan import Task
from train.members.candidate import Candidate

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
    monkeypatch.setattr("train.data.crops.decode_crop", lambda *_: pytest.fail("decoded again"))
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


@pytest.mark.parametrize("change_pictures", ["added", "removed", "renamed", "swapped", "written", "a byte"])
def test_other_pictures_are_refused(cohort: Path, tmp_path: Path, change_pictures: str) -> None:
    cached(cohort, tmp_path / "run")
    picture = cohort / "S001/000000.jpg"
    if change_pictures == "added":
        shutil.copy(picture, cohort / "S001/more.jpg")
    elif change_pictures == "removed":
        picture.unlink()
    elif change_pictures == "renamed":
        picture.rename(cohort / "S001/more.jpg")
    elif change_pictures == "swapped":
        picture.rename(cohort / "S001/more.jpg")
        (cohort / "S001/000001.jpg").rename(picture)
        (cohort / "S001/more.jpg").rename(cohort / "S001/000001.jpg")
    elif change_pictures == "written":
        shutil.copy(cohort / "S002/000000.jpg", picture)
    else:  # of the same size and with the same times
        times, data = picture.stat(), bytearray(picture.read_bytes())
        data[-10] ^= 1
        picture.write_bytes(data)
        os.utime(picture, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UsageError, match="run: was made from another table, other pictures or dates"):
        cached(cohort, tmp_path / "run")


def restaged(cohort: Path, folder: Path) -> Path:
    """The same bytes with other times, as cp -r leaves them."""
    shutil.copytree(cohort, folder, copy_function=shutil.copyfile)
    for path in folder.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


def test_the_same_pictures_elsewhere_are_taken(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cohort / "S002/000000.jpg").write_bytes(b"")  # one that is rejected
    first = cached(cohort, tmp_path / "run")
    before = (tmp_path / "run/crops/cohort.json").read_bytes()
    copy = restaged(cohort, tmp_path / "elsewhere")
    monkeypatch.setattr("train.data.crops.decode_crop", lambda *_: pytest.fail("decoded again"))
    again = cached(copy, tmp_path / "run")
    assert torch.equal(again.crops, first.crops)
    assert again.facts == first.facts
    assert (tmp_path / "run/crops/cohort.json").read_bytes() == before


def test_facts_by_value(drawn: Path, tmp_path: Path) -> None:
    lines = b"".join(
        f"{patient.patient_id}/{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        for patient in PATIENTS
        for path in sorted((drawn / patient.patient_id).iterdir())
    )
    facts = cached(drawn, tmp_path / "run").facts
    assert facts == {
        "table_sha256": hashlib.sha256((drawn / TABLE).read_bytes()).hexdigest(),
        "pictures_sha256": hashlib.sha256(lines).hexdigest(),
        "pictures_compared_by": "content",
        "reference_date": "2019-07-01",
        "date_format": "",
        "sample_date_format": "",
        "sex_codes": "",
        "picture_size": "",
        "pixel_size": "",
        "picture_sizes": "120 120 120 120",
        "segmented": "no",
    }
    assert facts == load_crops(tmp_path / "run").facts


def make_old(run: Path, cohort: Path) -> dict[str, str]:
    """Turn a run folder into one of the versions that compared names, sizes and times; returns its facts."""
    lines = ""
    for patient in PATIENTS:
        for path in sorted((cohort / patient.patient_id).iterdir()):
            lines += f"{patient.patient_id}/{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n"
    facts: dict[str, str] = json.loads((run / "crops/cohort.json").read_text())
    facts["pictures_sha256"] = hashlib.sha256(lines.encode()).hexdigest()
    del facts["pictures_compared_by"]
    (run / "crops/cohort.json").write_text(json.dumps(facts))
    return facts


def test_an_earlier_versions_run_is_taken_while_times_and_sizes_stay(cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = cached(cohort, run)
    facts = make_old(run, cohort)
    again = cached(cohort, run)
    assert torch.equal(again.crops, first.crops)
    assert again.facts == facts == json.loads((run / "crops/cohort.json").read_text())
    # What was predicted from it keeps its name, and is not trained again.
    task = Task(Candidate("m", {}, lambda *_: np.zeros(1)), np.array([0]), np.array([1]))
    said = {"member": "m", "facts": {}, "data": facts, "training": ["S001"], "asked": ["S002"]}
    assert task.key(again) == hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def test_of_an_earlier_versions_run_other_times_are_refused_with_the_reason(cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cached(cohort, run)
    facts = make_old(run, cohort)
    with pytest.raises(UsageError, match="run: was made from another table, other pictures or dates"):
        cached(cohort, run, dt.date(2020, 1, 1))
    with pytest.raises(UsageError) as caught:
        cached(restaged(cohort, tmp_path / "elsewhere"), run)
    assert str(caught.value) == (
        f"{run}: an earlier version of lympho made it and kept only names, sizes and times of the pictures. These have "
        f"changed, so it cannot be known whether the pictures have. Copy the pictures with their times (cp -a, "
        f"rsync -a), or choose another run folder"
    )
    assert json.loads((run / "crops/cohort.json").read_text()) == facts
    cached(Path(shutil.copytree(cohort, tmp_path / "with times")), run)


def test_pictures_that_cannot_be_compared_end_the_call(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(cohort, tmp_path / "run")
    broken = OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr("train.data.source.try_picture", lambda *_: (str(broken), broken))
    with pytest.raises(
        CohortError, match=r"S001/000000\.jpg: could not be read to its end \(Input/output error\)\. Try again"
    ):
        cached(cohort, tmp_path / "run")
    with pytest.raises(CohortError, match="could not be read to its end"):
        cached(cohort, tmp_path / "other")
    assert [path.name for path in (tmp_path / "other/crops").iterdir()] == ["lock"]


def test_of_two_calls_the_second_takes_what_the_first_has_written(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, both = [], threading.Barrier(2)

    def decode(data: bytes, size: int) -> object:
        decoded.append(len(data))
        return decode_crop(data, size)

    def call() -> Bags:
        both.wait()
        return cached(cohort, tmp_path / "run")

    monkeypatch.setattr("train.data.crops.decode_crop", decode)
    with ThreadPoolExecutor() as pool:
        bags = [future.result() for future in [pool.submit(call), pool.submit(call)]]
    assert len(decoded) == sum(len(patient.kinds) for patient in PATIENTS)
    for found in bags:
        check_bags(found, cohort, PATIENTS)


@pytest.mark.parametrize("rejected", [0, 1, 7])
def test_the_file_of_crops_is_numpys_to_the_byte(cohort: Path, tmp_path: Path, rejected: int) -> None:
    pictures = sorted(cohort.glob("*/*.jpg"))
    for path in pictures[1 : 1 + 3 * rejected : 3]:
        path.write_bytes(b"")
    root = cohort.resolve()
    expected = io.BytesIO()
    np.save(expected, np.stack([read_crop(path, root, CROP_SIZE) for path in pictures if path.stat().st_size]))
    bags = cached(cohort, tmp_path / "run")
    assert (tmp_path / "run/crops/crops.npy").read_bytes() == expected.getvalue()
    assert len(bags.crops) == len(pictures) - rejected


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can grow beyond 500,000 bytes: 13 crops."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def check_no_room(run: Path, reason: str, error: pytest.ExceptionInfo[CropsError]) -> None:
    """The message, and that nothing is left that takes space or could be taken for crops."""
    pictures = sum(len(patient.kinds) for patient in PATIENTS)
    needed = pictures * (CROP_SIZE * CROP_SIZE * 3 + 256) + 65536
    said = str(error.value)
    assert said.startswith(
        f"{run}/crops: no room for the crops of {pictures} pictures ({reason}). About {needed:,} bytes are needed, "
    )
    assert said.endswith(" are free. Make room there, or choose a run folder on another disk")
    assert error.value.exit_code == 1
    assert [path.name for path in (run / "crops").iterdir()] == ["lock"]
    with pytest.raises(UsageError, match="has no crops yet"):
        load_crops(run)


def test_a_disk_that_is_too_small_is_found_before_anything_is_decoded(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_files: None
) -> None:
    monkeypatch.setattr("train.data.crops.decode_crop", lambda *_: pytest.fail("it began to decode"))
    with pytest.raises(CropsError) as caught:
        cached(drawn, tmp_path / "run")
    check_no_room(tmp_path / "run", "File too large", caught)


def test_the_bytes_that_are_free_are_those_of_the_run_folders_disk(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    asked = []

    def disk_usage(path: Path) -> object:
        asked.append((path, [left.name for left in path.iterdir()]))
        return SimpleNamespace(free=1_000_000)

    monkeypatch.setattr("train.data.crops.os.posix_fallocate", full)
    monkeypatch.setattr("train.data.crops.shutil.disk_usage", disk_usage)
    with pytest.raises(CropsError, match=r" bytes are needed, 1,000,000 are free\. ") as caught:
        cached(drawn, tmp_path / "run")
    check_no_room(tmp_path / "run", "No space left on device", caught)
    assert asked == [(tmp_path / "run/crops", ["lock"])]  # once the unfinished file is gone


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_where_space_cannot_be_set_aside_the_write_that_fails_is_told(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_files: None, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("train.data.crops.os.posix_fallocate", refuse)
    with pytest.raises(CropsError) as caught:
        cached(drawn, tmp_path / "run")
    check_no_room(tmp_path / "run", "File too large", caught)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    check_bags(cached(drawn, tmp_path / "run"), drawn, PATIENTS)


@pytest.mark.parametrize("name", ["images.csv", "rejected.csv", "patients.csv", "cohort.json.part"])
def test_a_disk_that_is_full_for_a_table_leaves_no_crops(drawn: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "run/crops").mkdir(parents=True)
    (tmp_path / "run/crops" / name).symlink_to("/dev/full")
    with pytest.raises(CropsError) as caught:
        cached(drawn, tmp_path / "run")
    check_no_room(tmp_path / "run", "No space left on device", caught)
    check_bags(cached(drawn, tmp_path / "run"), drawn, PATIENTS)


def test_what_is_not_ours_stays_when_the_disk_is_full(drawn: Path, tmp_path: Path, small_files: None) -> None:
    (tmp_path / "run/crops").mkdir(parents=True)
    (tmp_path / "run/crops/notes.txt").write_text("of somebody else")
    with pytest.raises(CropsError):
        cached(drawn, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run/crops").iterdir()) == ["lock", "notes.txt"]


def test_a_run_folder_that_cannot_be_written_is_named(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/crops").write_text("")
    with pytest.raises(CropsError) as caught:
        cached(drawn, tmp_path / "run")
    assert str(caught.value) == (f"{tmp_path}/run/crops: cannot be written (File exists). Choose another run folder")


def test_on_a_full_disk_train_ends_with_1_and_the_message(drawn: Path, tmp_path: Path, small_files: None) -> None:
    call = train("crops", drawn, tmp_path / "run", *DATE)
    assert call.code == 1
    assert call.errors.startswith(f"Error: {tmp_path}/run/crops: no room for the crops of ")


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


def test_the_pictures_sizes_are_written_down(cohort: Path, tmp_path: Path) -> None:
    patient, *_ = PATIENTS
    Image.new("RGB", (150, 112)).save(cohort / patient.patient_id / "000000.jpg")
    bags = cached(cohort, tmp_path / "run")
    assert bags.facts["picture_sizes"] == "120 150 112 120"
    assert picture_sizes(bags) == (Range(120, 150), Range(112, 120))


def test_the_analysers_size_can_be_said_where_pictures_are_cut_out(cohort: Path, tmp_path: Path) -> None:
    assert train("crops", cohort, tmp_path / "run", *DATE, "--picture-size", "224", "200").code == 0
    assert picture_sizes(load_crops(tmp_path / "run")) == (Range(224, 224), Range(200, 200))
    assert train("crops", cohort, tmp_path / "run", *DATE).code == 2


def test_what_a_pixel_covers_is_only_recorded(cohort: Path, tmp_path: Path) -> None:
    silent = cached(cohort, tmp_path / "silent")
    assert pixel_size(silent) is None
    assert train("crops", cohort, tmp_path / "run", *DATE, "--pixel-size", "0.08").code == 0
    bags = load_crops(tmp_path / "run")
    assert pixel_size(bags) == 0.08
    assert torch.equal(bags.crops, silent.crops)
    assert train("crops", cohort, tmp_path / "run", *DATE, "--pixel-size", "0.09").code == 2
    for wrong in ("0", "-0.1", "nan", "inf"):
        assert train("crops", cohort, tmp_path / "other", *DATE, "--pixel-size", wrong).code == 2


def test_a_run_folder_that_does_not_say_leaves_the_size_to_the_bundles_default(cohort: Path, tmp_path: Path) -> None:
    bags = cached(cohort, tmp_path / "run")
    path = tmp_path / "run/crops/cohort.json"
    facts = {name: value for name, value in bags.facts.items() if not name.startswith("picture_size")}
    path.write_text(json.dumps(facts))
    assert picture_sizes(cached(cohort, tmp_path / "run")) == ()
    assert Drift([0.0], *picture_sizes(load_crops(tmp_path / "run"))).sizes == "224 x 224"


def test_codes_and_formats_are_taken_and_belong_to_the_run(cohort: Path, tmp_path: Path) -> None:
    table = cohort / TABLE
    header, *lines = table.read_text().splitlines()
    swapped = {"M": "H", "F": "M"}
    cells = [line.split(",") for line in lines]
    rows = [[*row[:3], swapped[row[3]], *row[4:], "1.7.19"] for row in cells]
    table.write_text("\n".join([f"{header},SAMPLE_DATE", *map(",".join, rows)]) + "\n")
    options = ["--sex-codes", "H=male,M=female", "--sample-date-format", "%d.%m.%y"]
    assert train("crops", cohort, tmp_path / "run").code == 1  # in doubt
    assert train("crops", cohort, tmp_path / "run", *options).code == 0
    clinical = load_crops(tmp_path / "run").clinical
    assert clinical[:, 0].tolist() == [float(row[3] == "F") for row in cells]
    assert train("crops", cohort, tmp_path / "run", *options[2:], "--sex-codes", "M=male,H=female").code == 2
