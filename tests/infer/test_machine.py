"""Influences of the machine: full disks, removed outputs, signals, few CPUs, no home folder."""

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infer.bundle.load import REFERENCE
from infer.output.journal import JOURNAL, read_journal
from tests.infer.runs import (
    LEFT,
    MANY_PATIENTS,
    RESULT_FILES,
    TINY,
    Outcome,
    names,
    score,
    score_on_a_fixed_day,
    verdict,
)

ROOT = Path(__file__).parents[2]


def start(cohort: Path, out: Path, bundle: Path = TINY, **how: Any) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "infer", str(cohort), str(out), "--device=cpu", f"--bundle={bundle}"]
    return popen([*line, "--reference-date=2019-07-01"], **how)


def popen(line: list[str], **how: Any) -> subprocess.Popen[str]:
    # In a shell's background job SIGINT is ignored, and a child process would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True, **how)
    finally:
        signal.signal(signal.SIGINT, before)


def finished(out: Path) -> int:
    stored = read_journal(out / JOURNAL)
    return len(stored.places) if stored else 0


def wait_for_patients(process: subprocess.Popen[str], out: Path, number: int) -> None:
    deadline = time.monotonic() + 120
    while finished(out) < number and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_keeps_all_finished_patients(
    many: Path, whole: Outcome, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    process = start(many, tmp_path)
    wait_for_patients(process, tmp_path, 3)
    process.send_signal(sent)
    assert ended(process)[0] == code
    assert [name for name in names(tmp_path) if name != ".lock"] == LEFT
    assert (".lock" in names(tmp_path)) == (sent == signal.SIGKILL)
    kept = finished(tmp_path)
    assert 3 <= kept < MANY_PATIENTS
    outcome = score_on_a_fixed_day(many, tmp_path)
    assert outcome.record["kept_from_earlier_starts"] == kept
    assert outcome.csv_bytes == whole.csv_bytes
    assert names(tmp_path) == RESULT_FILES


def test_a_second_signal_does_not_cut_short_the_tidying_up(many: Path, whole: Outcome, tmp_path: Path) -> None:
    process = start(many, tmp_path)
    wait_for_patients(process, tmp_path, 3)
    for _ in range(5):
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    code, errors = ended(process)
    assert code in (143, 130)  # the order of simultaneously pending signals is not defined
    assert "Traceback" not in errors
    assert names(tmp_path) == LEFT
    assert score_on_a_fixed_day(many, tmp_path).csv_bytes == whole.csv_bytes


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_tidying_up_is_not_cut_short_by_the_same_signal_again(
    many: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    """The cleanup is slowed down, so that the second signal arrives during it."""
    with run_with_slow_end(many, tmp_path, patience=60, seconds=2) as process:
        for _ in range(2):
            process.send_signal(sent)
            time.sleep(0.5)
        found, errors = ended(process)
    assert (found, names(tmp_path)) == (code, LEFT)
    assert "tidied up" in errors
    assert "Traceback" not in errors


def test_a_second_signal_ends_a_run_that_is_stuck_in_tidying_up(many: Path, tmp_path: Path) -> None:
    with run_with_slow_end(many, tmp_path, patience=0.5, seconds=60) as process:
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:  # a busy machine may see the first ones late
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
        assert process.poll() == 143


def test_an_interrupt_that_the_caller_ignores_is_ignored(many: Path, whole: Outcome, tmp_path: Path) -> None:
    """As in a shell's background job."""
    process = start(many, tmp_path, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_for_patients(process, tmp_path, 3)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 0
    assert Outcome(0, tmp_path).csv_bytes == whole.csv_bytes


@contextmanager
def run_with_slow_end(cohort: Path, out: Path, patience: float, seconds: float) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-c", SLOW_END, str(cohort), str(out), str(TINY), str(patience), str(seconds)]
    with popen(line) as process:
        try:
            wait_for_patients(process, out, 3)
            yield process
        finally:
            process.kill()


SLOW_END = """
import sys, time
from infer import cli
from infer.machine import console
from infer.output import results

patients, out, bundle, patience, seconds = sys.argv[1:]
console.PATIENCE = float(patience)
leave = results.Results.__exit__

def leave_slowly(*arguments):
    time.sleep(float(seconds))
    leave(*arguments)
    print("tidied up", file=sys.stderr)

results.Results.__exit__ = leave_slowly
sys.argv = ["infer", patients, out, "--device=cpu", "--bundle", bundle, "--reference-date=2019-07-01"]
cli.main()
"""


def test_a_disk_that_fills_up_is_7_and_the_next_run_goes_on(many: Path, whole: Outcome, tmp_path: Path) -> None:
    """The kernel's limit on file sizes simulates a full disk: writes are truncated, then fail."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    code, errors = ended(start(many, tmp_path, preexec_fn=small_files))
    assert code == 7
    assert f"Error: {tmp_path}" in errors
    assert "cannot be written (File too large)" in errors
    assert "Traceback" not in errors
    assert names(tmp_path) == LEFT
    kept = finished(tmp_path)
    assert 10 < kept < MANY_PATIENTS
    outcome = score_on_a_fixed_day(many, tmp_path)
    assert outcome.record["kept_from_earlier_starts"] == kept
    assert outcome.csv_bytes == whole.csv_bytes


def test_a_disk_too_full_for_the_tables_keeps_the_journal(many: Path, whole: Outcome, tmp_path: Path) -> None:
    """The journal fits, images.csv does not."""
    size = (whole.out / "images.csv").stat().st_size
    line = [sys.executable, "-c", FULL_AT_THE_END, str(many), str(tmp_path), str(TINY), str(size - 1)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, names(tmp_path)) == (7, LEFT), done.stderr
    outcome = score_on_a_fixed_day(many, tmp_path)
    assert outcome.record["kept_from_earlier_starts"] == MANY_PATIENTS
    assert outcome.csv_bytes == whole.csv_bytes


FULL_AT_THE_END = """
import resource, sys
from infer import cli
from infer.output import results

patients, out, bundle, size = sys.argv[1:]
finish = results.Results.finish

def finish_on_a_full_disk(*arguments):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
    finish(*arguments)

results.Results.finish = finish_on_a_full_disk
sys.argv = ["infer", patients, out, "--device=cpu", "--bundle", bundle, "--reference-date=2019-07-01"]
cli.main()
"""


def replaced(out: Path) -> None:
    shutil.rmtree(out)
    out.mkdir()


@pytest.mark.parametrize("delete", [shutil.rmtree, replaced])
def test_an_output_deleted_under_way_is_7(many: Path, tmp_path: Path, delete: Callable[[Path], None]) -> None:
    out = tmp_path / "out"
    process = start(many, out)
    wait_for_patients(process, out, 3)
    delete(out)
    code, errors = ended(process)
    assert code == 7
    assert f"Error: {out}" in errors
    assert "Traceback" not in errors
    assert not out.exists() or names(out) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["nowhere", "out"], 4), (["--unknown"], 2), (["nowhere", "out", "--bundle", "nowhere"], 5)],
)
@pytest.mark.parametrize("variables", [{"PYTHONUNBUFFERED": ""}, {"PYTHONUNBUFFERED": "1"}])
def test_a_log_on_a_full_disk_changes_no_exit_code(
    tmp_path: Path, arguments: list[str], code: int, variables: dict[str, str]
) -> None:
    line = [sys.executable, "-m", "infer", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(line, cwd=tmp_path, stderr=full, env=environment, check=False, timeout=120)
    assert done.returncode == code


@pytest.mark.parametrize("redirect", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_neither_a_closed_nor_a_full_log_stops_a_run(many: Path, whole: Outcome, tmp_path: Path, redirect: str) -> None:
    line = f'{sys.executable} -m infer "$0" "$1" --device cpu --bundle "$2" --reference-date 2019-07-01 {redirect}'
    done = subprocess.run(["bash", "-c", line, many, tmp_path, TINY], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == 0
    assert Outcome(0, tmp_path).csv_bytes == whole.csv_bytes


def test_a_run_that_gets_too_little_memory_says_so(many: Path, tmp_path: Path) -> None:
    def little() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (200 * 2**20, resource.RLIM_INFINITY))

    code, errors = ended(start(many, tmp_path, preexec_fn=little, bundle=REFERENCE))
    assert code == 1
    assert "Error: out of memory" in errors
    assert "Traceback" not in errors


def test_one_processor_gives_the_same_bytes(plain: Outcome, pristine: Path, tmp_path: Path) -> None:
    """With the real networks, whose sums are split among threads."""
    line = [sys.executable, "-m", "infer", str(pristine), str(tmp_path), "--device=cpu", "--reference-date=2019-07-01"]
    one = {min(os.sched_getaffinity(0))}
    done = subprocess.run(line, cwd=ROOT, preexec_fn=lambda: os.sched_setaffinity(0, one), check=False)
    assert done.returncode == 0
    assert Outcome(0, tmp_path).csv_bytes == plain.csv_bytes


def test_neither_home_nor_tmp_nor_any_variable_is_needed(many: Path, whole: Outcome, tmp_path: Path) -> None:
    nowhere = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "TEMP": "/nonexistent", "LC_ALL": "C"}
    code, errors = ended(start(many, tmp_path, env=nowhere))
    assert code == 0, errors
    assert Outcome(0, tmp_path).csv_bytes == whole.csv_bytes


def test_files_are_for_the_owner_and_its_group(pristine: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        score(pristine, tmp_path, bundle=TINY)
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in RESULT_FILES} == {0o640}


@pytest.mark.usefixtures("decoded_here")
def test_too_little_memory_for_a_picture_fails_its_patient_alone(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors during decoding are passed on: neither the worker process nor the run ends."""
    plain = score(pristine, tmp_path / "plain", bundle=TINY)
    works, calls = np.ascontiguousarray, 0

    def short_of_memory(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise MemoryError
        return works(*arguments, **named)

    monkeypatch.setattr("infer.pictures.decode.np.ascontiguousarray", short_of_memory)
    outcome = score(pristine, tmp_path / "out", bundle=TINY, workers=1)
    assert outcome.code == 3
    failed = [row for row in outcome.predictions.values() if row["status"] != "scored"]
    assert [verdict(row) for row in failed] == [("failed", "reading_broke_off")]
    assert "Cannot allocate memory" in failed[0]["reason"]
    rest = {key: row for key, row in outcome.predictions.items() if row["status"] == "scored"}
    assert len(rest) == 5
    assert rest == {key: plain.predictions[key] for key in rest}
