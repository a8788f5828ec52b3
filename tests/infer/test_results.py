import contextlib
import csv
import errno
import io
import json
import logging
import os
import re
import resource
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from infer.bundle.load import REFERENCE, Bundle
from infer.bundle.manifest import SCHEMA, OperatingPoint, load_members
from infer.cohort.patient import Patient
from infer.engine.networks import Networks, Seen
from infer.errors import OutputError
from infer.machine.processors import available_processors
from infer.output.columns import Basis, image_fields, prediction_fields
from infer.output.csv import DIALECTS, ImagesWriter, PredictionsWriter
from infer.output.journal import FORMAT, JOURNAL, Header, Identity, read_journal, run_of
from infer.output.lock import LOCK
from infer.output.results import Results, _LogFile
from infer.output.summary import Summary
from infer.scoring.result import ImageResult, PatientResult, Scores
from tests.fuzz import fuzz
from tests.infer.manifests import make_manifest
from tests.infer.runs import LEFT, RESULT_FILES, TABLE, Cut, Outcome, keep_patients, names, rows, score, set_count

MEMBERS = load_members(make_manifest())
BASIS = Basis("abc", OperatingPoint(0.4, 0.6), "2019-07-01", "2026-11-28", 0.75)
WRITERS = (PredictionsWriter(MEMBERS, BASIS), ImagesWriter(MEMBERS))
PREDICTION_COLUMNS, IMAGE_COLUMNS = (writer.head().rstrip("\n").split(",") for writer in WRITERS)
SCORES = Scores(
    probability=0.1234567,
    decision="refer",
    members={"baseline": 0.25, "scan": 0.5, "moe": 0.1000004, "imagenet": 0.3},
    further={"moe_image_gate": 0.75, "imagenet_image_gate": 0.125},
    disagreement_of_weighted=0.5,
)
IMAGE = ImageResult(
    "1.jpg",
    "",
    {
        "baseline_probability": 0.5,
        "cell_class": 14,
        "cell_class_confidence": 0.99999949,
        "imagenet_contribution": -1.25,
    },
    influence=-0.0625,
    influence_of={"baseline": -0.125},
)
HEADER = Header(FORMAT, Identity("0", "l", "b", "balanced", None, None, "n"), "2019-07-01")


def patient(line: int, patient_id: str) -> Patient:
    return Patient(patient_id, line, None, None)


def result(patient_id: str = "P1", status: str = "scored", **changes: object) -> PatientResult:
    scored = {"reason": "", "age_years": 69.0049, "scores": SCORES, "images": (IMAGE, ImageResult("2.jpg", "empty: x"))}
    measured = {"measures": {"sex": 1.0, "lymph_count": 5.8}}
    return PatientResult(patient_id, status, **(scored | measured | changes))  # type: ignore[arg-type]


def without_scores(status: str, reason: str = "count_missing: x") -> PatientResult:
    return result(status=status, reason=reason, age_years=None, scores=None, images=())


def prediction_row(of: PatientResult) -> list[str]:
    (row,) = csv.reader(io.StringIO(WRITERS[0].rows(of), newline=""))
    return row


def image_rows(of: PatientResult) -> list[list[str]]:
    return list(csv.reader(io.StringIO(WRITERS[1].rows(of), newline="")))


def test_columns_are_those_of_the_contract() -> None:
    predictions, images = (writer.head() for writer in WRITERS)
    assert predictions == (
        "patient_id,status,reason,probability_malignant,decision,age_years,images,images_rejected,"
        "baseline_probability,scan_probability,moe_probability,moe_image_gate,disagreement,bundle,imagenet_probability,"
        "ood_p,unusual,sex,lymph_count,refer_low,refer_high,reference_date,imagenet_image_gate,"
        "refer_disagreement,disagreement_of_weighted,run_ended\n"
    )
    assert images == (
        "patient_id,image,status,reason,baseline_probability,cell_class,cell_class_confidence,imagenet_contribution,"
        "influence\n"
    )


def test_every_column_has_a_name_of_its_own_and_a_meaning() -> None:
    for fields in (prediction_fields(MEMBERS, BASIS), image_fields(MEMBERS)):
        columns = [field.column for field in fields]
        assert len({column.name for column in columns}) == len(columns)
        assert all(column.meaning for column in columns)


def test_a_scored_row_by_value() -> None:
    row = "P1,scored,,0.123457,refer,69.00,2,1,0.250000,0.500000,0.100000,0.750000,0.400000,abc,0.300000,1.0000,"
    row += ",F,5.8,0.400000,0.600000,2019-07-01,0.125000,0.750000,0.500000,2026-11-28"
    assert WRITERS[0].rows(result()) == f"{row}\n"


def test_a_spreadsheet_in_french_reads_numbers() -> None:
    predictions, images = (
        PredictionsWriter(MEMBERS, BASIS, DIALECTS["excel-fr"]),
        ImagesWriter(MEMBERS, DIALECTS["excel-fr"]),
    )
    assert predictions.head().startswith("\ufeffpatient_id;status;reason;")
    row = "P1;scored;;0,123457;refer;69,00;2;1;0,250000;0,500000;0,100000;0,750000;0,400000;abc;0,300000;1,0000;"
    assert (
        predictions.rows(result())
        == f"{row};F;5,8;0,400000;0,600000;2019-07-01;0,125000;0,750000;0,500000;2026-11-28\n"
    )
    assert images.rows(result()).startswith("P1;1.jpg;used;;0,500000;14;0,999999;-1,250000;-0,062500\n")


def test_what_is_unusual_by_value() -> None:
    of = result(scores=structs.replace(SCORES, ood_p=1 / 131), unusual=("sharpness low", "age_years high"))
    assert prediction_row(of)[15:17] == ["0.0076", "sharpness low, age_years high"]


@pytest.mark.parametrize("status", ["refused", "failed"])
def test_a_row_without_a_probability_has_no_number_at_all(status: str) -> None:
    row = prediction_row(without_scores(status))
    assert row == ["P1", status, "count_missing: x", *[""] * 10, "abc", *[""] * 11, "2026-11-28"]
    assert len(row) == len(PREDICTION_COLUMNS)


def test_image_rows_by_value() -> None:
    assert WRITERS[1].rows(result()) == (
        "P1,1.jpg,used,,0.500000,14,0.999999,-1.250000,-0.062500\nP1,2.jpg,rejected,empty: x,,,,,\n"
    )
    assert WRITERS[1].rows(without_scores("failed")) == ""
    failed = structs.replace(without_scores("failed"), images=(IMAGE,))
    assert image_rows(failed) == [["P1", "1.jpg", "used", "", "", "", "", "", ""]]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_cells_that_a_spreadsheet_would_compute_are_guarded(start: str) -> None:
    patient_id, image = f"{start}1+1", f"{start}cmd.jpg"
    for of_patient in (result(patient_id), structs.replace(without_scores("failed"), patient_id=patient_id)):
        assert prediction_row(of_patient)[0] == f"'{patient_id}"
    (row,) = image_rows(result(patient_id, images=(ImageResult(image, "empty: x"),)))
    assert row[:2] == [f"'{patient_id}", f"'{image}"]
    assert prediction_row(result(f"P{start}1"))[0] == f"P{start}1"


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@fuzz(200)
@given(patient_id=texts, image=texts, reason=texts, number=st.floats(0, 1))
def test_rows_read_back_as_they_were(patient_id: str, image: str, reason: str, number: float) -> None:
    """Commas, quotes and line ends in texts; a guarded text differs only by its apostrophe."""
    scores = structs.replace(SCORES, probability=number)
    of_patient = result(patient_id, scores=scores, images=(ImageResult(image, reason),))
    prediction = dict(zip(PREDICTION_COLUMNS, prediction_row(of_patient), strict=True))
    (row,) = image_rows(of_patient)
    picture = dict(zip(IMAGE_COLUMNS, row, strict=True))
    pairs = ((prediction["patient_id"], patient_id), (picture["image"], image), (picture["reason"], reason))
    for found, written in pairs:
        assert found in (written, f"'{written}")
        assert found[0] not in "=+-@\t\r"
    assert float(prediction["probability_malignant"]) == pytest.approx(number, abs=5.1e-7)


@pytest.mark.parametrize(
    ("scored", "refused", "failed", "max_refused", "code"),
    [
        (1, 0, 0, 0.5, 0),
        (5, 5, 0, 0.5, 0),
        (4, 5, 0, 0.5, 3),
        (99, 0, 1, 0.5, 3),
        (99, 0, 1, 1.0, 3),
        (0, 4, 0, 1.0, 3),
        (1, 9, 0, 1.0, 0),
        (9, 1, 0, 0.0, 3),
        (9, 0, 0, 0.0, 0),
        (7, 3, 0, 0.3, 0),
    ],
)
def test_the_exit_code_of_a_finished_run(scored: int, refused: int, failed: int, max_refused: float, code: int) -> None:
    summary = Summary()
    for status, number in (("scored", scored), ("refused", refused), ("failed", failed)):
        for _ in range(number):
            summary.add(result() if status == "scored" else without_scores(status), 2)
    assert summary.exit_code(max_refused) == code


def test_the_summary_by_value() -> None:
    summary = Summary()
    for one in (
        result(
            ignored_files=2,
            scores=structs.replace(SCORES, disagree=True),
            unusual=("sharpness low", "age_years high", "red high"),
            unusual_sizes={"168 x 168": 2, "9 x 9": 1},
            pictures_below=("slide2",),
            contents=("0a", "0b"),
        ),
        without_scores("refused"),
        without_scores("failed", "folder_missing: y"),
        without_scores("failed", "folder_missing: z"),
    ):
        summary.add(one, 9 - sum(summary.patients.values()))  # as when resuming: the last comes first
    assert summary.as_record() == {
        "patients": {"scored": 1, "refused": 1, "failed": 2},
        "patient_reasons": {"count_missing": 1, "folder_missing": 2},
        "decisions": {"malignant": 0, "reactive": 0, "refer": 1},
        "patients_disagreeing": 1,
        "images": {"used": 1, "rejected": 1},
        "image_reasons": {"empty": 1},
        "ignored_files": 2,
        "patients_unlike_training": 1,
        "unlike_training": ["P1"],
        "unusual_measures": {"red high": 1, "sharpness low": 1},
        "patients_with_unusual_picture_size": 1,
        "unusual_picture_size": ["P1"],
        "unusual_picture_sizes": {"168 x 168": 2, "9 x 9": 1},
        "patients_with_pictures_below": 1,
        "pictures_below": {"P1": ["slide2"]},
        "same_pictures": [],
        "not_scored": [
            {"patient_id": "P1", "status": "failed", "code": "folder_missing"},
            {"patient_id": "P1", "status": "failed", "code": "folder_missing"},
            {"patient_id": "P1", "status": "refused", "code": "count_missing"},
        ],
    }


def test_files_appear_only_when_all_is_written(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with Results(out, HEADER, "now", None) as results:
        results.write(3, result("P2"))
        results.write(2, result())
        logging.getLogger("lympho").warning("a line")
        run = run_of(out / JOURNAL)
        assert not set(RESULT_FILES) & set(names(out))
        results.finish({"exit_code": 0, "name": "é"}, {"sentence": "é"}, [patient(2, "P1"), patient(3, "P2")], WRITERS)
        assert names(out) == [LOCK, *RESULT_FILES]
    assert names(out) == RESULT_FILES
    assert [row["patient_id"] for row in rows(out / "predictions.csv")] == ["P1", "P2"]
    assert [row["image"] for row in rows(out / "images.csv")] == ["1.jpg", "2.jpg"] * 2
    assert json.loads((out / "run.json").read_text(encoding="utf-8")) == {
        "run": run,
        "exit_code": 0,
        "name": "é",
        "synced": True,
        "sync_note": "",
    }
    assert "WARNING a line" in (out / "run.log").read_text()
    assert {stat.S_IMODE((out / name).stat().st_mode) & 0o007 for name in RESULT_FILES} == {0}


def test_finished_patients_alone_are_left_without_finish(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Results(out, HEADER, "now", None) as results:
        results.write(2, result())
        assert names(out) == [JOURNAL, LOCK, ".run.log.part"]
    assert names(out) == LEFT
    assert {stat.S_IMODE((out / name).stat().st_mode) & 0o007 for name in LEFT} == {0}
    stored = read_journal(out / JOURNAL)
    assert stored is not None
    assert (stored.header, stored.starts, list(stored.places)) == (HEADER, ("now",), ["P1"])


@pytest.mark.parametrize("finished", [True, False])
def test_an_earlier_runs_files_stay_and_those_of_no_finished_run_go(tmp_path: Path, finished: bool) -> None:
    earlier = [name for name in RESULT_FILES if finished or name != "run.json"]
    for name in (*earlier, "notes.txt"):
        (tmp_path / name).write_text("earlier")
    with Results(tmp_path, HEADER, "now", None):
        assert set(RESULT_FILES) & set(names(tmp_path)) == (set(RESULT_FILES) if finished else set())
    assert names(tmp_path) == sorted([*LEFT, *(RESULT_FILES if finished else ()), "notes.txt"])
    assert {(tmp_path / name).read_text() for name in (*(earlier if finished else ()), "notes.txt")} == {"earlier"}


def test_out_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "out" / "predictions.csv").mkdir(parents=True)
    for out, said in (
        ("file", "file: cannot be written (File exists)"),
        ("file/below", "file/below: cannot be written (Not a directory)"),
        ("out", "out/predictions.csv: must be replaced by the new results but cannot be removed (Is a directory)"),
    ):
        with pytest.raises(OutputError, match=re.escape(f"{tmp_path / said}")) as caught:
            Results(tmp_path / out, HEADER, "now", None)
        assert caught.value.exit_code == 7
    assert names(tmp_path / "out") == ["predictions.csv"]


@pytest.mark.parametrize("breaks", ["fsync", "replace"])
def test_a_full_disk_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: str) -> None:
    works, calls = getattr(os, breaks), []

    def full(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        works(*arguments)

    with Results(tmp_path, HEADER, "now", None) as results:
        results.write(2, result())
        monkeypatch.setattr(os, breaks, full)
        with pytest.raises(OutputError, match="No space left"):
            results.finish({}, {}, [patient(2, "P1")], WRITERS)
    assert names(tmp_path) == LEFT


def test_the_files_of_a_run(plain: Outcome, bundle: Bundle, pristine: Path) -> None:
    assert names(plain.out) == RESULT_FILES
    for name, columns in (("predictions.csv", PREDICTION_COLUMNS), ("images.csv", IMAGE_COLUMNS)):
        data = (plain.out / name).read_bytes()
        assert b"\r" not in data
        assert next(csv.reader(data.decode().splitlines())) == list(columns)
    six_digits = re.compile(r"[01]\.\d{6}")
    for row in plain.predictions.values():
        numbers = [row[column] for column in PREDICTION_COLUMNS if column.endswith("probability")]
        numbers += [
            row["probability_malignant"],
            row["moe_image_gate"],
            row["disagreement"],
            row["imagenet_image_gate"],
        ]
        assert all(six_digits.fullmatch(number) for number in numbers)
        assert row["decision"] in ("malignant", "reactive", "refer")
        assert row["bundle"] == bundle.bundle_id[:12]


def test_run_json(plain: Outcome, bundle: Bundle, pristine: Path) -> None:
    record, point = plain.record, bundle.manifest.ensemble.operating_points["balanced"]
    assert record["bundle"] == {
        "id": bundle.bundle_id,
        "folder": str(REFERENCE),
        "schema": SCHEMA,
        "weights": bundle.manifest.ensemble.weights,
        "weak": None,
        "thresholds": {
            "refer_low": point.refer_low,
            "refer_high": point.refer_high,
            "refer_disagreement": bundle.manifest.ensemble.disagreement,
        },
        "prevalence": 90 / 130,
        "adapted_from": None,
    }
    nodes = record["device"].pop("nodes")
    assert record["device"] == {
        "asked": "cpu",
        "provider": "CPUExecutionProvider",
        "note": "cpu requested",
        "precision": "int8",
        "batch_size": 8,
        "processors": available_processors(),
        "batches_side_by_side": min(16, available_processors()),
    }
    assert set(record["libraries"]) == {"onnxruntime", "numpy", "pillow", "jpeg", "simplejpeg"}
    assert list(nodes) == ["CPUExecutionProvider"]
    assert nodes["CPUExecutionProvider"] > 200
    assert record["cohort"]["patients"] == 6
    assert record["cohort"]["table"] == str(pristine / TABLE)
    assert re.fullmatch("[0-9a-f]{64}", record["cohort"]["table_sha256"])
    assert record["options"]["reference_date"] == "2019-07-01"
    assert record["options"]["operating_point"] == "balanced"
    assert record["options"]["batch_size"] is None
    assert record["patients"] == {"scored": 6, "refused": 0, "failed": 0}
    assert sum(record["decisions"].values()) == 6
    assert record["images"] == {"used": len(plain.images), "rejected": 0}
    assert (record["exit_code"], record["exit_meaning"]) == (0, "finished")
    (start,) = record["starts"]
    assert start <= record["ended"]
    assert (record["kept_from_earlier_starts"], record["started_over"], record["not_scored"]) == (0, "", [])
    assert record["downgrades"] == []
    assert (record["synced"], record["sync_note"]) == (True, "")
    assert record["cohort"]["folders_without_row"] == []


def test_neither_run_json_nor_the_log_hold_a_patients_values(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lympho")  # as the command line sets it
    for patient_id, count in (("S002", "77123"), ("S003", "sekret"), ("S004", "0.77123")):
        set_count(cohort, patient_id, count)
    outcome = score(cohort, tmp_path / "out")
    assert outcome.code == 0
    values = [row[column] for row in rows(cohort / TABLE) for column in ("DOB", "LYMPH_COUNT")]
    of_the_run = {"bundle", "refer_low", "refer_high", "reference_date", "run_ended"}
    harmless = {"patient_id", "status", "reason", "decision", "unusual", "sex", *of_the_run}
    values += [row[column] for row in outcome.predictions.values() for column in row if column not in harmless]
    values += [row["image"] for row in outcome.images]  # a file name may reveal more than an ID
    for name in ("run.json", "run.log"):
        text = (outcome.out / name).read_text()
        long_enough = [value for value in values if len(value) > 3]  # "5.1" may be part of a time or version
        assert len(long_enough) > 8
        assert [value for value in long_enough if value in text] == []


def test_an_id_forges_no_line_of_the_log(cohort: Path, tmp_path: Path) -> None:
    text = (cohort / TABLE).read_text()
    (cohort / TABLE).write_text(text.replace(",S002,", ',"S002\nforged",'))
    log = score(cohort, tmp_path / "out").out / "run.log"
    assert "'S002\\nforged' failed" in log.read_text()
    assert "\nforged" not in log.read_text()


def test_a_disk_too_full_for_the_log_hides_nothing(tmp_path: Path) -> None:
    """The line stays in the log's buffer, and closing the log fails again."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def cut_on_a_full_disk() -> None:
        with Results(tmp_path, HEADER, "now", None):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
            logging.getLogger("lympho").warning("a line")
            raise Cut

    try:
        with pytest.raises(Cut):
            cut_on_a_full_disk()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_lock_taken_away_ends_the_run_before_its_results(tmp_path: Path) -> None:
    with Results(tmp_path, HEADER, "now", None) as results:
        results.write(2, result())
        (tmp_path / LOCK).unlink()
        with pytest.raises(OutputError, match=r"\.lock: cannot be written"):
            results.finish({}, {}, [patient(2, "P1")], WRITERS)
    assert names(tmp_path) == LEFT


def test_no_result_is_left_when_scoring_breaks_midway(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batches succeed, so rows have been written by then."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.csv").write_text("earlier")
    works, calls = Networks.score_pictures, []

    def breaks(self: Networks, images: object, clinical: object) -> Seen:
        calls.append(names(out))
        if len(calls) > 8:  # the self-test's pictures and some of the cohort
            raise RuntimeError("a bug")
        return works(self, images, clinical)  # type: ignore[arg-type]

    monkeypatch.setattr(Networks, "score_pictures", breaks)
    with pytest.raises(RuntimeError, match="a bug"):
        score(pristine, out, batch_size=8)
    assert names(out) == LEFT
    assert calls[-1] == [JOURNAL, LOCK, ".run.log.part"]


def test_ids_that_look_like_formulas_are_scored_and_guarded(cohort: Path, tmp_path: Path) -> None:
    keep_patients(cohort, "S002")
    (cohort / "S002").rename(cohort / "=1+1")
    (cohort / "=1+1" / "000000.jpg").rename(cohort / "=1+1" / "@0.jpg")
    text = (cohort / TABLE).read_text()
    (cohort / TABLE).write_text(text.replace("S002", "=1+1"))
    outcome = score(cohort, tmp_path / "out")
    assert outcome.predictions["'=1+1"]["status"] == "scored"
    assert "'@0.jpg" in outcome.images_of("'=1+1")
    assert "=1+1" not in outcome.predictions


def test_a_log_that_cannot_be_written_writes_nothing_elsewhere(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """By default, Python prints a traceback for every line."""
    caplog.set_level(logging.INFO, "lympho")
    with Path("/dev/full").open("w") as full:
        handler = _LogFile(full)
        log = logging.getLogger("lympho")
        log.addHandler(handler)
        try:
            log.info("a line")
        finally:
            log.removeHandler(handler)
            with contextlib.suppress(OSError):
                full.close()
    assert capfd.readouterr().err == ""
