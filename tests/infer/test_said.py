"""What a run says to its operator: how it ended and why, what is left, what was rejected, what to do about OUT."""

import errno
import logging
import os
from pathlib import Path
from unittest.mock import patch

import pytest

from infer.cohort.table import parse_table
from infer.errors import CohortError, OutputError
from infer.machine.times import about, in_words
from infer.output.advice import advice
from infer.output.folder import output_errors
from infer.output.progress import Progress
from infer.output.results import Results
from infer.output.summary import Summary
from infer.scoring.result import PatientResult
from tests.infer.runs import TINY, link_cohort, score, set_count
from tests.synthetic import make_patients, write_cohort

PATIENTS = 4


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "patients"
    write_cohort(folder, make_patients(PATIENTS, seed=9, images=(10, 11)), seed=9, labels=False, size=112)
    return folder


class Stop(BaseException):
    """In place of a signal."""


def test_a_run_that_is_stopped_says_how_many_patients_are_kept(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writes, written = Results.write, 0

    def write(self: Results, line: int, result: PatientResult) -> None:
        nonlocal written
        writes(self, line, result)
        written += 1
        if written == 3:
            raise Stop

    with patch.object(Results, "write", write), pytest.raises(Stop), caplog.at_level(logging.INFO):
        score(drawn, tmp_path / "out", bundle=TINY)
    said = f"stopped before the end; 3 of {PATIENTS} patients are kept in OUT. The same command goes on from there"
    assert caplog.messages[-1] == said
    log = (tmp_path / "out/.run.log.part").read_text().splitlines()
    assert log[-1].endswith(said)
    assert score(drawn, tmp_path / "out", bundle=TINY).record["kept_from_earlier_starts"] == 3


def test_rejected_pictures_are_counted_in_the_log(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cohort = link_cohort(drawn, tmp_path / "patients")
    patient = cohort / "S001"
    (patient / "empty.jpg").write_bytes(b"")
    (patient / "letter.jpg").write_bytes(b"Dear colleague")
    with caplog.at_level(logging.INFO):
        score(cohort, tmp_path / "out", bundle=TINY)
    pictures = len(list(patient.iterdir()))
    (line,) = [one for one in caplog.messages if "rejected (" in one]
    assert line.startswith(f"S001: 2 of {pictures} pictures rejected (")
    assert "empty 1" in line


def test_exit_code_3_says_why(drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cohort = link_cohort(drawn, tmp_path / "patients")
    for patient in ("S001", "S002", "S003"):
        set_count(cohort, patient, "")
    with caplog.at_level(logging.INFO):
        outcome = score(cohort, tmp_path / "out", bundle=TINY)
    why = "3 of 4 patients were refused, more than 50% (--max-refused)"
    assert outcome.code == 3
    assert outcome.record["exit_reasons"] == [why]
    assert caplog.messages[-1].endswith(f"exit code 3: {why}")


@pytest.mark.parametrize(
    ("patients", "expected"),
    [
        ({"scored": 2}, []),
        ({"scored": 1, "failed": 1}, ["1 patient has failed"]),
        ({"failed": 2}, ["2 patients have failed", "no patient was scored"]),
        (
            {"refused": 2},
            ["no patient was scored", "2 of 2 patients were refused, more than 50% (--max-refused)"],
        ),
    ],
)
def test_the_causes_of_exit_code_3(patients: dict[str, int], expected: list[str]) -> None:
    summary = Summary()
    summary.patients.update(patients)
    assert summary.failures(0.5) == expected
    assert summary.exit_code(0.5) == (3 if expected else 0)


def test_a_dry_run_does_not_sound_like_a_run(drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert score(drawn, tmp_path / "out", bundle=TINY, dry_run=True).code == 0
    assert caplog.messages[-1] == (
        f"dry run: nothing was scored or written. A run would end with {PATIENTS} scored, 0 refused, 0 failed, and "
        "exit code 0: finished"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "a few seconds"), (9.9, "a few seconds"), (14, "10 seconds"), (94, "90 seconds"), (95, "2 minutes"),
        (360, "6 minutes"), (5900, "98 minutes"), (6000, "1 hour 40 minutes"), (7190, "2 hours"),
        (9000, "2 hours 30 minutes"), (3 * 86_400, "3 days"),
    ],
)  # fmt: skip
def test_times_for_people(seconds: float, text: str) -> None:
    assert in_words(seconds) == text
    assert about(seconds) == (text if seconds < 10 else f"about {text}")


def test_progress_says_what_is_left_by_the_pace_so_far(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    with patch("infer.output.progress.time.monotonic", lambda: now), caplog.at_level(logging.INFO):
        progress = Progress(4)
        now = 60.0
        progress.advance(10)
        now = 240.0
        for _ in range(3):
            progress.advance(10)
    assert caplog.messages[0].endswith("about 3 minutes left")
    assert "left" not in caplog.messages[-1]


def test_a_header_in_small_letters_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError) as caught:
        parse_table(b"id,Gender,DOB,LYMPH_COUNT\nP1,F,1/2/1950,5\n", tmp_path / "table.csv")
    assert "has no column ID, GENDER; it has id, Gender, but names must be written, in capitals as ID, GENDER" in str(
        caught.value
    )


def test_what_to_do_about_a_folder(tmp_path: Path) -> None:
    there, missing = tmp_path, tmp_path / "nowhere" / "out"
    found = there.stat()
    assert "Make room" in advice(there, errno.ENOSPC)
    assert "mounted read-only" in advice(there, errno.EROFS)
    assert "does not exist" in advice(missing, errno.EROFS)
    assert "Is its volume mounted" in advice(missing, errno.EROFS)
    whose = advice(missing, errno.EACCES)
    assert f"This run is user {os.geteuid()}; {tmp_path} belongs to user {found.st_uid}" in whose
    assert f"--user {found.st_uid}:{found.st_gid}" in whose
    assert advice(there, errno.EIO) == ""


def test_a_folder_that_may_not_be_searched_costs_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path.exists raises there; the answer is about the next folder above that can be seen."""

    def forbidden(path: str | Path, **_: object) -> os.stat_result:
        if Path(path) != tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path)

    stat = os.stat
    monkeypatch.setattr(os, "stat", forbidden)
    assert f"{tmp_path} belongs to user" in advice(tmp_path / "out", errno.EACCES)
    assert "Is its volume mounted" in advice(tmp_path / "out", errno.EROFS)


def test_the_advice_is_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, output_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "run.json"))
    assert str(caught.value).startswith(f"{tmp_path / 'run.json'}: cannot be written (Permission denied). This run is")
