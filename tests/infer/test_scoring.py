import datetime as dt
import errno
import io
import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from infer.bundle.load import Bundle
from infer.cohort.patient import Clinical
from infer.engine.networks import Networks, Seen
from infer.engine.sessions import CPU, Device, Graph
from infer.members.features import base_features
from infer.members.member import Opinion
from infer.members.naive_bayes import NaiveBayes, malignant_probability
from infer.pictures.listing import Listing, list_images
from infer.scoring.ensemble import calibrated
from tests.crops import read_crop
from tests.infer.runs import (
    OF_EVERYBODY,
    TABLE,
    TINY,
    Outcome,
    cell,
    keep_patients,
    replace_picture,
    rows,
    score,
    set_count,
    verdict,
)
from tests.synthetic import REFERENCE_DATE, draw_cell

MEMBERS = ("baseline", "scan", "moe", "imagenet")


def age_of(cohort: Path, patient_id: str) -> float:
    """Age in years on the synthetic cohort's date."""
    month, day, year = (int(part) for part in cell(cohort, patient_id, "DOB").split("/"))
    return (REFERENCE_DATE - dt.date(year, month, day)).days / 365.25


def test_a_plain_cohort_is_scored_in_the_tables_order(plain: Outcome) -> None:
    assert plain.code == 0
    assert list(plain.predictions) == [f"S{number:03d}" for number in range(1, 7)]
    assert {row["status"] for row in plain.predictions.values()} == {"scored"}
    assert {row["reason"] for row in plain.predictions.values()} == {""}


def test_the_probability_is_the_weighted_mean_of_the_members(plain: Outcome, bundle: Bundle) -> None:
    weights = bundle.manifest.ensemble.weights
    assert set(weights) == set(MEMBERS)
    for row in plain.predictions.values():
        members = {member: float(row[f"{member}_probability"]) for member in MEMBERS}
        mean = sum(weights[member] * members[member] for member in MEMBERS)
        assert float(row["probability_malignant"]) == pytest.approx(mean, abs=1.01e-6)  # each is rounded to 6 digits
        spread = max(members.values()) - min(members.values())
        assert float(row["disagreement"]) == pytest.approx(spread, abs=1.51e-6)


def test_the_decision_follows_from_the_probability(plain: Outcome, bundle: Bundle) -> None:
    point = bundle.manifest.ensemble.operating_points["balanced"]
    for row in plain.predictions.values():
        probability = float(row["probability_malignant"])
        expected = "refer"
        if row["unusual"]:  # drawn cells are not like real ones
            pass
        elif probability >= point.refer_high:
            expected = "malignant"
        elif probability < point.refer_low:
            expected = "reactive"
        assert row["decision"] == expected


def test_one_patient_recomputed_by_hand(plain: Outcome, pristine: Path, bundle: Bundle) -> None:
    """Reference: picture by picture, each in its own batch, with the formulas of the report."""
    device = Device(CPU, "test")
    networks = Networks(bundle, device, 1, 1, "int8")
    patient_id, row = "S003", plain.predictions["S003"]
    sex, count = cell(pristine, patient_id, "GENDER"), float(cell(pristine, patient_id, "LYMPH_COUNT"))
    clinical = Clinical(sex == "F", count, age_of(pristine, patient_id)).vector()
    manifest = bundle.manifest
    section = manifest.members["scan"]
    fusion, model = section["class_fusion"], msgspec.convert(section["naive_bayes"], NaiveBayes)
    baseline, features_of, classes, contributions = [], [], [], []
    for path in sorted((pristine / patient_id).iterdir()):
        seen = networks.score_pictures(read_crop(path, pristine.resolve(), 112)[None], clinical[None])
        baseline.append(float(seen["baseline"]["probability"][0]))
        features_of.append(seen["moe"]["features"][0])
        contributions.append(float(seen["imagenet"]["contribution"][0]))
        classes.append(fusion[int(np.argmax(seen["scan"]["probabilities"][0]))])
    values = clinical[None].astype(np.float32)
    means = np.mean(features_of, axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
    moe = Graph("moe_head.onnx", bundle.graphs["moe_head.onnx"], device, 1).run(features=means, clinical=values)
    contribution = np.array([np.mean(contributions)], np.float32)
    head = Graph("imagenet_head.onnx", bundle.graphs["imagenet_head.onnx"], device, 1)
    imagenet = head.run(contribution=contribution, clinical=values)
    features = base_features(clinical, np.array(classes), max(fusion) + 1)
    raw = {
        "baseline": float(np.mean(baseline)),
        "scan": float(malignant_probability(features, model)),
        "moe": float(moe["probability"][0]),
        "imagenet": float(imagenet["probability"][0]),
    }
    for member, value in raw.items():
        expected = float(calibrated(np.array(value), manifest.ensemble.calibration[member]))
        assert float(row[f"{member}_probability"]) == pytest.approx(expected, abs=2e-6)
    assert float(row["moe_image_gate"]) == pytest.approx(float(moe["gate"][0]), abs=2e-6)
    of_patient = [image for image in plain.images if image["patient_id"] == patient_id]
    assert [int(image["cell_class"]) for image in of_patient] == classes
    assert [float(image["baseline_probability"]) for image in of_patient] == pytest.approx(baseline, abs=2e-6)
    found = [float(image["imagenet_contribution"]) for image in of_patient]
    assert found == pytest.approx(contributions, abs=2e-5)


def test_ages_are_those_at_the_reference_date(plain: Outcome, pristine: Path) -> None:
    ages = {patient_id: f"{age_of(pristine, patient_id):.2f}" for patient_id in plain.predictions}
    assert {patient_id: row["age_years"] for patient_id, row in plain.predictions.items()} == ages


def test_two_runs_give_the_same_bytes_and_leave_the_input_alone(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}
    assert score(cohort, tmp_path / "out").csv_bytes == plain.csv_bytes
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*")} == before


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (48, 0), (None, 3)])
def test_neither_batches_nor_processes_change_a_byte(
    plain: Outcome, pristine: Path, tmp_path: Path, batch_size: int | None, workers: int
) -> None:
    outcome = score(pristine, tmp_path / "out", batch_size=batch_size, workers=workers)
    assert outcome.csv_bytes == plain.csv_bytes


@pytest.mark.parametrize("cpus", [1, 3, 48])
def test_processors_change_no_byte(
    plain: Outcome, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: int
) -> None:
    """For any number of parallel batches and of threads per batch."""
    monkeypatch.setattr("infer.ready.available_processors", lambda: cpus)
    assert score(cohort, tmp_path / "out", batch_size=8).csv_bytes == plain.csv_bytes


def test_batches_go_side_by_side(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three batches wait for each other: if run one after the other, they would hang."""
    works, calls, meeting = Networks.score_pictures, itertools.count(), threading.Barrier(3)

    def met(self: Networks, images: Any, clinical: Any) -> Any:
        if len(images) == 16 and next(calls) < 3:  # not the self-test's
            meeting.wait(timeout=60)
        return works(self, images, clinical)

    monkeypatch.setattr(Networks, "score_pictures", met)
    monkeypatch.setattr("infer.ready.available_processors", lambda: 3)
    assert score(pristine, tmp_path / "out", batch_size=16).code == 0


def test_a_patient_alone_has_the_same_row(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    outcome = score(keep_patients(cohort, "S004"), tmp_path / "out")
    assert outcome.predictions == {"S004": plain.predictions["S004"]}
    assert outcome.images == [row for row in plain.images if row["patient_id"] == "S004"]


def test_the_tables_order_is_the_results_order(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    lines = (cohort / "clinical_annotation.csv").read_text().splitlines(keepends=True)
    (cohort / "clinical_annotation.csv").write_text("".join([lines[0], *reversed(lines[1:])]))
    outcome = score(cohort, tmp_path / "out")
    assert list(outcome.predictions) == list(reversed(plain.predictions))
    assert outcome.predictions == plain.predictions


def test_every_picture_has_a_row_in_order(plain: Outcome, pristine: Path) -> None:
    listed = [(row["patient_id"], row["image"]) for row in plain.images]
    assert listed == [(path.parent.name, path.name) for path in sorted(pristine.glob("S*/*"))]
    for row in plain.images:
        assert (row["status"], row["reason"]) == ("used", "")
        assert 0 <= int(row["cell_class"]) <= 14
        assert 0 < float(row["cell_class_confidence"]) <= 1.000001
        assert 0 <= float(row["baseline_probability"]) <= 1
    for patient_id, row in plain.predictions.items():
        assert int(row["images"]) == len(list((pristine / patient_id).iterdir()))
        assert row["images_rejected"] == "0"


def test_sample_dates_and_ages_in_the_table_are_used(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    lines = (cohort / "clinical_annotation.csv").read_text().splitlines()
    extra = ["SAMPLE_DATE,AGE", "7/1/2019,", "7/1/2018,", ",", ",55.5", "2019-07-01,", "1-7-2019,"]
    table = "".join(f"{line},{more}\n" for line, more in zip(lines, extra, strict=True))
    (cohort / "clinical_annotation.csv").write_text(table)
    ages = {key: row["age_years"] for key, row in score(cohort, tmp_path / "out").predictions.items()}
    before = {key: row["age_years"] for key, row in plain.predictions.items()}
    assert float(ages["S002"]) == pytest.approx(float(before["S002"]) - 365 / 365.25, abs=0.011)
    assert ages == before | {"S002": ages["S002"], "S004": "55.50"}


# Problems with single patients.


def remove_the_folder(cohort: Path, patient_id: str) -> None:
    (cohort / patient_id).rename(cohort.parent / f"away-{patient_id}")


def leave_a_file_instead_of_the_folder(cohort: Path, patient_id: str) -> None:
    remove_the_folder(cohort, patient_id)
    (cohort / patient_id).write_bytes(b"")


def link_the_folder_out_of_the_cohort(cohort: Path, patient_id: str) -> None:
    remove_the_folder(cohort, patient_id)
    (cohort / patient_id).symlink_to(cohort.parent / f"away-{patient_id}")


def empty_the_folder(cohort: Path, patient_id: str) -> None:
    remove_the_folder(cohort, patient_id)
    (cohort / patient_id).mkdir()


def leave_only_other_files(cohort: Path, patient_id: str) -> None:
    empty_the_folder(cohort, patient_id)
    (cohort / patient_id / "notes.txt").write_text("none yet")


def make_every_picture_a_text(cohort: Path, patient_id: str) -> None:
    for path in (cohort / patient_id).iterdir():
        replace_picture(path, b"no picture")


def keep_nine_pictures(cohort: Path, patient_id: str) -> None:
    for path in sorted((cohort / patient_id).iterdir())[9:]:
        path.unlink()


def remove_the_count(cohort: Path, patient_id: str) -> None:
    set_count(cohort, patient_id, "")


def give_the_count_per_microlitre(cohort: Path, patient_id: str) -> None:
    set_count(cohort, patient_id, "11200")


def say_the_id_twice(cohort: Path, patient_id: str) -> None:
    text = (cohort / "clinical_annotation.csv").read_text()
    (line,) = [line for line in text.splitlines() if f",{patient_id}," in line]
    (cohort / "clinical_annotation.csv").write_text(f"{text}{line}\n")


Change = Callable[[Path, str], None]
FAILED: dict[str, tuple[Change, str]] = {
    "S001": (remove_the_folder, "folder_missing"),
    "S002": (link_the_folder_out_of_the_cohort, "folder_outside"),
    "S003": (empty_the_folder, "folder_empty"),
    "S005": (make_every_picture_a_text, "no_usable_image"),
    "S006": (say_the_id_twice, "id_duplicate"),
}
FAILED_TOO: dict[str, tuple[Change, str]] = {
    "S005": (leave_a_file_instead_of_the_folder, "folder_missing"),
    "S006": (leave_only_other_files, "folder_empty"),
}
REFUSED: dict[str, tuple[Change, str]] = {
    "S001": (keep_nine_pictures, "too_few_images"),
    "S003": (remove_the_count, "count_missing"),
    "S006": (give_the_count_per_microlitre, "count_implausible"),
}


@pytest.mark.parametrize(
    ("changes", "status", "exit_code"),
    [(FAILED, "failed", 3), (FAILED_TOO, "failed", 3), (REFUSED, "refused", 0)],
    ids=["failed", "failed too", "refused"],
)
def test_what_befalls_one_patient_befalls_no_other(
    plain: Outcome,
    cohort: Path,
    tmp_path: Path,
    changes: dict[str, tuple[Change, str]],
    status: str,
    exit_code: int,
) -> None:
    for patient_id, (change, _) in changes.items():
        change(cohort, patient_id)
    outcome = score(cohort, tmp_path / "out")
    assert outcome.code == exit_code
    assert list(outcome.predictions) == list(plain.predictions)
    for patient_id, row in outcome.predictions.items():
        if patient_id not in changes:
            assert row == plain.predictions[patient_id]
            continue
        assert verdict(row) == (status, changes[patient_id][1])
        values = [row[column] for column in row if column not in OF_EVERYBODY]
        assert set(values) == {""}
        assert row["bundle"] == plain.predictions[patient_id]["bundle"]
    listed = {patient_id for patient_id, (_, code) in changes.items() if code.endswith(("_image", "_images"))}
    assert {row["patient_id"] for row in outcome.images} == (set(plain.predictions) - set(changes)) | listed
    counts = {"scored": 6 - len(changes), "refused": 0, "failed": 0}
    assert outcome.record["patients"] == counts | {status: len(changes)}
    assert outcome.record["patient_reasons"] == dict(sorted((code, 1) for _, code in changes.values()))


def test_nine_pictures_are_too_few_and_ten_are_enough(cohort: Path, tmp_path: Path) -> None:
    keep_nine_pictures(cohort, "S002")
    replace_picture(cohort / "S002" / "000000.jpg", b"no picture")
    for path in sorted((cohort / "S003").iterdir())[10:]:
        path.unlink()
    outcome = score(keep_patients(cohort, "S002", "S003"), tmp_path / "out")
    found = outcome.images_of("S002")
    assert found.pop("000000.jpg") == ("rejected", "not_an_image")
    assert set(found.values()) == {("rejected", "patient_refused")}
    assert len(found) == 8
    of_patient = [row for row in outcome.images if row["patient_id"] == "S002"]
    assert {row[column] for row in of_patient for column in list(row)[4:]} == {""}
    assert outcome.record["image_reasons"] == {"not_an_image": 1, "patient_refused": 8}
    ten = outcome.predictions["S003"]
    assert (ten["status"], ten["images"]) == ("scored", "10")


def test_an_unusable_picture_costs_that_picture_only(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    """Adding unusable files does not change a patient's numbers; damaging a picture does, and costs that picture."""
    folder = cohort / "S003"
    good = (folder / "000000.jpg").read_bytes()
    (folder / "zz-text.jpg").write_text("no picture")
    (folder / "zz-cut.jpg").write_bytes(good[:-1024])
    (folder / "zz-empty.jpg").write_bytes(b"")
    (folder / "zz-link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    Image.new("RGB", (90, 90)).save(folder / "zz-small.png")
    (folder / "notes.txt").write_text("ignored")
    outcome = score(keep_patients(cohort, "S003"), tmp_path / "out")
    assert outcome.code == 0
    row, before = outcome.predictions["S003"], plain.predictions["S003"]
    number = int(before["images"])
    assert row == before | {"images": str(number + 5), "images_rejected": "5"}
    found = outcome.images_of("S003")
    rejected = {name: code for name, (status, code) in found.items() if status == "rejected"}
    assert rejected == {
        "zz-cut.jpg": "damaged",
        "zz-empty.jpg": "empty",
        "zz-link.jpg": "outside",
        "zz-small.png": "too_small",
        "zz-text.jpg": "not_an_image",
    }
    assert outcome.record["ignored_files"] == 1
    assert outcome.record["images"] == {"used": number, "rejected": 5}


def test_a_truncated_picture_is_left_out_of_the_mean(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    path = keep_patients(cohort, "S003") / "S003" / "000004.jpg"
    replace_picture(path, path.read_bytes()[:-1024])
    cut = score(cohort, tmp_path / "cut")
    path.unlink()
    without = score(cohort, tmp_path / "without")
    assert cut.code == without.code == 0
    numbers = {"images": without.predictions["S003"]["images"], "images_rejected": "0"}
    assert cut.predictions["S003"] | numbers == without.predictions["S003"]
    assert cut.predictions["S003"]["images_rejected"] == "1"
    assert cut.images_of("S003")["000004.jpg"] == ("rejected", "damaged")
    assert cut.predictions["S003"]["baseline_probability"] != plain.predictions["S003"]["baseline_probability"]


def test_a_folder_named_like_a_picture_costs_that_picture_only(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    (cohort / "S003" / "zz.jpg").mkdir()
    outcome = score(keep_patients(cohort, "S003"), tmp_path / "out")
    assert outcome.images_of("S003")["zz.jpg"] == ("rejected", "not_a_file")
    assert outcome.predictions["S003"]["probability_malignant"] == plain.predictions["S003"]["probability_malignant"]


def test_a_picture_that_vanishes_between_listing_and_reading_costs_that_picture_only(
    plain: Outcome, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(folder: Path) -> Listing:
        listing = list_images(folder)
        if folder.name == "S003":
            (folder / "000004.jpg").unlink()
        return listing

    monkeypatch.setattr("infer.scoring.bag.list_images", listed)
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out")
    assert outcome.code == 0
    assert outcome.images_of("S003")["000004.jpg"] == ("rejected", "unreadable")
    assert outcome.predictions["S003"]["images_rejected"] == "1"
    assert outcome.predictions["S004"] == plain.predictions["S004"]


def test_a_file_name_that_is_not_utf_8_costs_at_most_that_picture(cohort: Path, tmp_path: Path) -> None:
    """As delivered by a Windows share in Latin-1."""
    folder = cohort / "S003"
    (folder / "000000.jpg").rename(folder / os.fsdecode(b"zz-\xe9.jpg"))
    outcome = score(keep_patients(cohort, "S003"), tmp_path / "out")
    assert outcome.code == 0
    assert len(outcome.images_of("S003")) == int(outcome.predictions["S003"]["images"])


def test_a_picture_is_used_by_its_content(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    """The same pixels as a PNG with the suffix of a JPEG: the same numbers."""
    path = cohort / "S003" / "000002.jpg"
    file = io.BytesIO()
    with Image.open(path) as image:
        image.save(file, "PNG")
    replace_picture(path, file.getvalue())
    outcome = score(keep_patients(cohort, "S003"), tmp_path / "out")
    assert outcome.predictions == {"S003": plain.predictions["S003"]}


def test_no_picture_of_a_cohort_can_be_used(cohort: Path, tmp_path: Path) -> None:
    for path in cohort.glob("*/*.jpg"):
        replace_picture(path, b"")
    outcome = score(cohort, tmp_path / "out")
    assert outcome.code == 3
    assert outcome.record["patients"] == {"scored": 0, "refused": 0, "failed": 6}
    assert {row["reason"].partition(":")[0] for row in outcome.images} == {"empty"}


def test_rows_and_pictures_add_up(plain: Outcome) -> None:
    assert len(rows(plain.out / "images.csv")) == plain.record["images"]["used"]
    assert sum(int(row["images"]) for row in plain.predictions.values()) == plain.record["images"]["used"]


@pytest.mark.parametrize(
    ("name", "output"),
    [("scan", "probabilities"), ("baseline", "probability"), ("moe", "features"), ("imagenet", "contribution")],
)
def test_what_is_no_number_for_a_picture_fails_its_patient(
    plain: Outcome, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, output: str
) -> None:
    """Above all SCAN's classes: the argmax of NaN is the first class, from which naive Bayes would give a number."""
    works: Callable[..., Seen] = Networks.score_pictures
    calls = itertools.count()

    def no_number(self: Networks, images: Any, clinical: Any) -> Seen:
        seen = works(self, images, clinical)
        if len(images) == 16 and next(calls) == 0:  # not the self-test's
            seen[name][output][3] = np.nan
        return seen

    monkeypatch.setattr(Networks, "score_pictures", no_number)
    monkeypatch.setattr("infer.ready.available_processors", lambda: 1)
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out", batch_size=16)
    assert verdict(outcome.predictions["S003"]) == ("failed", "not_finite")
    assert outcome.predictions["S004"] == plain.predictions["S004"]
    assert "nan" not in (tmp_path / "out/images.csv").read_text()


@pytest.mark.usefixtures("decoded_here")
def test_a_folder_that_vanishes_while_it_is_read_fails_its_patient(
    plain: Outcome, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each picture by itself looks deleted; the rest would give a plausible number."""
    opens = os.open

    def unmounted(path: str, flags: int, *mode: int) -> int:
        if str(path).endswith("S003/000011.jpg"):
            (cohort / "S003").rename(tmp_path / "unmounted")
        return opens(path, flags, *mode)

    monkeypatch.setattr(os, "open", unmounted)
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out", workers=1)
    assert verdict(outcome.predictions["S003"]) == ("failed", "reading_broke_off")
    assert outcome.predictions["S004"] == plain.predictions["S004"]


@pytest.mark.usefixtures("decoded_here")
def test_a_disk_that_fails_midway_fails_the_patient_and_no_other(
    plain: Outcome, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probability from half the pictures would look plausible."""
    opens = os.open

    def broken(path: str, flags: int, *mode: int) -> int:
        if str(path).endswith("S003/000004.jpg"):
            raise OSError(errno.EIO, "Input/output error")
        return opens(path, flags, *mode)

    monkeypatch.setattr(os, "open", broken)
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out")
    assert outcome.code == 3
    assert verdict(outcome.predictions["S003"]) == ("failed", "reading_broke_off")
    assert outcome.predictions["S003"]["probability_malignant"] == ""
    assert outcome.images_of("S003")["000004.jpg"] == ("rejected", "reading_broke_off")
    assert outcome.predictions["S004"] == plain.predictions["S004"]


@pytest.mark.parametrize("name", ["baseline", "scan", "moe", "imagenet", "moe_image_gate"])
def test_what_is_no_number_for_a_patient_fails_it_alone(
    plain: Outcome, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    works: Callable[..., dict[str, Opinion]] = Networks.score_patient
    age = age_of(cohort, "S003")

    def no_number(self: Networks, sums: Any, clinical: Any) -> dict[str, Opinion]:
        opinions = works(self, sums, clinical)
        if clinical[2] != np.float32(age):
            return opinions
        if name in opinions:
            return opinions | {name: replace(opinions[name], probability=np.nan)}
        return opinions | {"moe": replace(opinions["moe"], further={**opinions["moe"].further, name: np.nan})}

    monkeypatch.setattr(Networks, "score_patient", no_number)
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out")
    assert outcome.code == 3
    assert verdict(outcome.predictions["S003"]) == ("failed", "not_finite")
    assert outcome.predictions["S004"] == plain.predictions["S004"]


def test_a_folder_that_may_not_be_read_fails_its_patient_alone(
    plain: Outcome, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated, because root may read everything."""

    def listed(folder: Path) -> Listing:
        if folder.name == "S003":
            raise PermissionError(errno.EACCES, "Permission denied")
        return list_images(folder)

    monkeypatch.setattr("infer.scoring.bag.list_images", listed)
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out")
    assert outcome.code == 3
    assert outcome.predictions["S003"]["reason"] == "folder_unreadable: Permission denied"
    assert outcome.predictions["S004"] == plain.predictions["S004"]


def test_a_folder_that_gets_stale_while_it_is_read_fails_its_patient_alone(
    plain: Outcome, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_: Path) -> Listing:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    (cohort / "S003/zz.jpg").symlink_to("nowhere.jpg")
    monkeypatch.setattr("infer.scoring.cohort.list_images", stale)
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out")
    assert verdict(outcome.predictions["S003"]) == ("failed", "reading_broke_off")
    assert outcome.predictions["S004"] == plain.predictions["S004"]


def log_of(outcome: Outcome) -> str:
    return (outcome.out / "run.log").read_text(encoding="utf-8")


def test_pictures_of_another_size_are_named_and_counted(cohort: Path, tmp_path: Path) -> None:
    """S003 has 224 x 224 as in training, S004 has 128 x 128, and two pictures of S005 have 168 x 140."""
    picture = Image.fromarray(draw_cell(1, np.random.default_rng(0)))
    for number, path in enumerate(sorted((cohort / "S003").iterdir())):
        replace_picture(path, encoded(picture.rotate(90 * (number % 4)), "JPEG", quality=90 - number))
    for path in sorted((cohort / "S005").iterdir())[2:]:
        replace_picture(path, (cohort / "S003" / "000001.jpg").read_bytes() + path.name.encode())
    for path in sorted((cohort / "S005").iterdir())[:2]:
        replace_picture(path, encoded(picture.resize((168, 140)), "PNG") + path.name.encode())
    pictures = len(list((cohort / "S004").iterdir()))
    outcome = score(keep_patients(cohort, "S003", "S004", "S005"), tmp_path / "out", bundle=TINY)
    assert outcome.code == 0
    assert outcome.record["unusual_picture_sizes"] == {"128 x 128": pictures, "168 x 140": 2}
    assert outcome.record["unusual_picture_size"] == ["S004", "S005"]
    assert outcome.record["patients_with_unusual_picture_size"] == 2
    log = log_of(outcome)
    assert f"S004: pictures of another size than in training (224 x 224): {pictures} of 128 x 128. " in log
    assert "S005: pictures of another size than in training (224 x 224): 2 of 168 x 140. " in log
    assert "S003: pictures" not in log


def test_the_same_pictures_under_two_patients_are_named(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    same = sorted(path.name for path in (cohort / "S003").iterdir())[:3]
    for number, name in enumerate(same):
        replace_picture(cohort / "S004" / f"other{number}.jpg", (cohort / "S003" / name).read_bytes())
    replace_picture(cohort / "S005/copy of 000000.jpg", (cohort / "S005/000000.jpg").read_bytes())
    out = tmp_path / "out"
    outcome = score(keep_patients(cohort, "S003", "S004", "S005"), out)
    assert outcome.code == 0
    assert outcome.record["same_pictures"] == [
        {"patients": ["S003", "S004"], "pictures": 3}, {"patients": ["S005"], "pictures": 1}
    ]  # fmt: skip
    assert "S003 and S004 share 3 pictures." in log_of(outcome)
    assert "S005: 1 picture found more than once in the folder." in log_of(outcome)
    assert outcome.predictions["S003"] == plain.predictions["S003"]
    assert plain.record["same_pictures"] == []


def test_many_duplicates_do_not_fill_the_log(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer.output.messages.MOST_DUPLICATES", 2)
    for patient_id in ("S002", "S003", "S004"):
        replace_picture(cohort / patient_id / "copy.jpg", (cohort / patient_id / "000000.jpg").read_bytes())
    outcome = score(keep_patients(cohort, "S002", "S003", "S004"), tmp_path / "out", bundle=TINY)
    assert log_of(outcome).count("more than once in the folder") == 2
    assert "1 more messages of this kind; run.json lists all" in log_of(outcome)
    assert len(outcome.record["same_pictures"]) == 3


def test_pictures_of_every_kind_are_told_of_a_refused_patient(cohort: Path, tmp_path: Path) -> None:
    """Ten pictures are enough for scoring; nine are not, but are checked too."""
    for patient_id, fewest in (("S003", 9), ("S004", 10)):
        for path in sorted((cohort / patient_id).iterdir())[fewest:]:
            path.unlink()
        (cohort / patient_id / "below").mkdir()
        os.link(cohort / patient_id / "000000.jpg", cohort / patient_id / "below/000000.jpg")
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out", bundle=TINY)
    assert [outcome.predictions[one]["status"] for one in ("S003", "S004")] == ["refused", "scored"]
    assert outcome.record["unusual_picture_sizes"] == {"128 x 128": 19}
    assert outcome.record["pictures_below"] == {"S003": ["below"], "S004": ["below"]}


def test_a_refused_patients_pictures_are_duplicates_too(cohort: Path, tmp_path: Path) -> None:
    for path in sorted((cohort / "S003").iterdir())[3:]:
        path.unlink()
    for path in (cohort / "S003").iterdir():
        os.link(path, cohort / "S004" / f"other {path.name}")
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out", bundle=TINY)
    assert verdict(outcome.predictions["S003"]) == ("refused", "too_few_images")
    assert outcome.record["same_pictures"] == [{"patients": ["S003", "S004"], "pictures": 3}]


def test_folders_below_a_patients_that_hold_pictures_are_named(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    (cohort / "S003/slide\n2").mkdir()
    os.link(cohort / "S004/000001.jpg", cohort / "S003/slide\n2/000001.jpg")
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out")
    assert outcome.record["pictures_below"] == {"S003": ["slide\n2"]}
    assert outcome.record["patients_with_pictures_below"] == 1
    assert "S003: pictures in subfolders (1) were ignored; run.json names" in log_of(outcome)
    assert "slide\n2" not in log_of(outcome)  # folder names may contain patients' names
    assert outcome.predictions["S003"] == plain.predictions["S003"]


def test_a_picture_without_a_usual_suffix_counts(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    (cohort / "S003/000004.jpg").rename(cohort / "S003/000004.jfif")
    (cohort / "S003/000005.jpg").rename(cohort / "S003/000005")
    outcome = score(keep_patients(cohort, "S003"), tmp_path / "out")
    assert outcome.predictions["S003"] == plain.predictions["S003"]
    assert outcome.images_of("S003")["000004.jfif"] == outcome.images_of("S003")["000005"] == ("used", "")


def test_a_folder_that_is_still_being_copied_fails_its_patient_alone(
    plain: Outcome, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = tmp_path.stat().st_ctime + 3600
    monkeypatch.setattr("infer.pictures.listing.time.time", lambda: long_ago)
    young = cohort / "S003/000001.jpg"
    replace_picture(young, young.read_bytes())
    os.utime(young, (long_ago - 5, long_ago - 5))
    kept = keep_patients(cohort, "S003", "S004")
    outcome = score(kept, tmp_path / "out", settle=10.0)
    assert outcome.code == 3
    assert (
        outcome.predictions["S003"]["reason"]
        == "still_changing: a file changed less than 10 s ago and may still be being copied. Run again later"
    )
    assert outcome.predictions["S004"] == plain.predictions["S004"]
    assert outcome.images_of("S003") == {}
    later = score(kept, tmp_path / "out", settle=4.0)
    assert later.code == 0
    assert later.predictions["S003"] == plain.predictions["S003"]


def test_a_folder_that_only_looks_like_the_patients_is_named_and_not_taken(cohort: Path, tmp_path: Path) -> None:
    (cohort / "S003").rename(cohort / "s003")
    outcome = score(keep_patients(cohort, "S003", "S004"), tmp_path / "out", bundle=TINY)
    assert outcome.code == 3
    reason = outcome.predictions["S003"]["reason"]
    assert reason.startswith("folder_missing: the cohort has no folder of this name, but 's003', which looks the same")
    assert "It was not taken: rename one of them" in reason


def png(colour: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.broadcast_to(colour, (120, 120, 3)).copy()).save(file, "PNG")
    return file.getvalue()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_an_order_that_no_date_shows_is_told(cohort: Path, tmp_path: Path) -> None:
    lines = (cohort / TABLE).read_text(encoding="utf-8").splitlines()
    born = lines[1].split(",")
    (cohort / TABLE).write_text("\n".join([lines[0], ",".join([*born[:3], "5/6/1950", born[4]])]) + "\n")
    for options in ({}, {"dry_run": True}):
        outcome = score(cohort, tmp_path / "out", bundle=TINY, **options)
        assert outcome.code == 0
    assert outcome.record["cohort"]["read_as"]["DOB"] == "with / month/day/year, unproven"
    expected = (
        "column DOB: read with / month/day/year, unproven: no date proves this order. If it is wrong, use --date-format"
    )
    assert expected in log_of(outcome)
    sure = score(cohort, tmp_path / "sure", bundle=TINY, date_format="%d/%m/%Y")
    assert sure.record["cohort"]["read_as"] == {"DOB": "%d/%m/%Y", "GENDER": f"{born[2]}={'fe' * (born[2] == 'F')}male"}
    assert "no date proves this order" not in log_of(sure)
