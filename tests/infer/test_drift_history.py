"""The history file: whole lines, of whichever run, once each."""

import errno
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from infer.drift import history
from infer.drift.history import Line, append_history, check_place, read_history, tonights_line
from infer.drift.locked import locked
from infer.errors import HeldError, LymphoError, OutputError, UsageError
from infer.output.names import no_file_in
from tests.fuzz import fuzz

LINE = tonights_line("2031-05-01T02:00:00+00:00", "bundle", "run 1", 12, {"red": (-3.25, 12), "sex": (0.5, 11)})
SECOND = structs.replace(LINE, run="run 2", evidence=30.5, alarm=True)
# Beginning at another run than its neighbours, and slow between looking for a run's line and writing it.
APPEND = """
import sys, time
from pathlib import Path
from infer.drift import history

parse = history._parse
def slowly(*arguments):
    lines = parse(*arguments)
    time.sleep(0.002)
    return lines
history._parse = slowly

print(1, flush=True)
sys.stdin.readline()
appended = 0
for number in range(60):
    run = f"run {(number + int(sys.argv[2])) % 60}"
    line = history.tonights_line("now", "bundle", run, 9, {"red": (1.0, 9)})
    appended += history.append_history(Path(sys.argv[1]), line)
    time.sleep(0.002)
print(appended)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


def test_what_is_appended_reads_back_the_same(path: Path) -> None:
    assert read_history(path, "bundle") == ()
    assert append_history(path, LINE)
    assert append_history(path, SECOND)
    assert read_history(path, "bundle") == (LINE, SECOND)
    first, second = path.read_text().splitlines()
    assert json.loads(first) == {
        "lympho": "history", "format": 1, "when": "2031-05-01T02:00:00+00:00", "bundle": "bundle", "run": "run 1",
        "patients": 12, "measures": {"red": [-3.25, 12], "sex": [0.5, 11]}, "seen": [], "evidence": 0.0, "alarm": False,
    }  # fmt: skip
    assert json.loads(second)["alarm"] is True


def test_a_run_has_one_line_and_counts_once(path: Path) -> None:
    assert append_history(path, LINE)
    assert not append_history(path, structs.replace(LINE, patients=99))
    assert read_history(path, "bundle") == (LINE,)
    path.write_bytes(path.read_bytes() * 2)  # two files put together by hand
    assert read_history(path, "bundle") == (LINE,)


def test_only_lines_of_the_same_bundle_count(path: Path) -> None:
    other = structs.replace(LINE, bundle="another")
    assert append_history(path, LINE)
    assert append_history(path, other)  # the same run, scored with another bundle
    assert read_history(path, "bundle") == (LINE,)
    assert read_history(path, "another") == (other,)


def test_its_group_may_read_it_and_nobody_else(path: Path) -> None:
    before = os.umask(0)
    try:
        append_history(path, LINE)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def damaged(path: Path, text: bytes, number: int, why: str) -> None:
    """Reading and appending end with the same error, and the file stays as it is."""
    path.write_bytes(text)
    said = (
        f"{path}, line {number}: is damaged, or is no line of a history ({why}). "
        "Remove this line, or give another --history file"
    )
    for use in (lambda: read_history(path, "bundle"), lambda: append_history(path, SECOND)):
        with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
            use()
    assert path.read_bytes() == text


def encoded(**changes: Any) -> bytes:
    record = {
        "lympho": "history", "format": 1, "when": "now", "bundle": "bundle", "run": "run 1", "patients": 12,
        "measures": {"red": [1.0, 12]}, "evidence": 0.0, "alarm": False,
    }  # fmt: skip
    return json.dumps(record | changes).encode() + b"\n"


def test_a_damaged_or_foreign_line_is_named(path: Path) -> None:
    good = encoded()
    damaged(path, good[:-1], 1, "does not end")
    damaged(path, good + good[:50], 2, "Input data was truncated")
    damaged(path, good + b"patient_id,status\n" + good, 2, "JSON is malformed: invalid character (byte 0)")
    damaged(path, good + b"\n" + good, 2, "Input data was truncated")
    damaged(path, b'{"patients": 3}\n', 1, "Object missing required field `format`")
    damaged(path, encoded(lympho="journal"), 1, "Invalid value 'journal' - at `$.lympho`")
    damaged(path, encoded(format=2), 1, "has format 2, this program reads 1")
    damaged(path, encoded(patients="12"), 1, "Expected `int`, got `str` - at `$.patients`")
    damaged(path, encoded(age=3), 1, "Object contains unknown field `age`")
    damaged(path, encoded(patients=-1), 1, "holds numbers that cannot be")
    damaged(path, encoded(measures={"red": [61.0, 12]}), 1, "holds numbers that cannot be")
    damaged(path, encoded(measures={"red": [0.0, -1]}), 1, "holds numbers that cannot be")


def test_another_bundles_damaged_line_stops_the_run_too(path: Path) -> None:
    damaged(path, encoded(bundle="another", patients=-1), 1, "holds numbers that cannot be")


@fuzz(200)
@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 40))
def test_no_damage_is_anything_but_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, new: bytes, at: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("history") / "history.jsonl"
    good = encoded() * 2
    path.write_bytes(good[:at] + new + good[at + cut :])
    try:
        lines = read_history(path, "bundle")
    except UsageError:
        return
    assert all(isinstance(line, Line) for line in lines)


def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_history(path, LINE)
    before = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:100]))
    with pytest.raises(
        OutputError, match=re.escape(f"{path}: the run's line cannot be written (No space left on device)")
    ):
        append_history(path, SECOND)
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert append_history(path, SECOND)
    assert read_history(path, "bundle") == (LINE, SECOND)


def test_a_disk_that_fails_to_sync_leaves_no_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_history(path, LINE)

    def fail(file: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(history, "sync", fail)
    with pytest.raises(OutputError, match=re.escape("(Input/output error)")):
        append_history(path, SECOND)
    assert read_history(path, "bundle") == (LINE,)


def test_processes_at_once_append_every_run_once(path: Path) -> None:
    line = [sys.executable, "-c", APPEND, str(path)]
    pipe = subprocess.PIPE
    running = [subprocess.Popen([*line, start], stdin=pipe, stdout=pipe, text=True) for start in ("0", "20", "40")]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    counts = [int(process.communicate()[0]) for process in running]
    assert sum(counts) == 60
    assert len(read_history(path, "bundle")) == len(path.read_text().splitlines()) == 60


def test_a_file_that_another_run_holds_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_history(path, LINE)
    monkeypatch.setattr("infer.drift.locked.PATIENCE", 0.1)
    with locked(path, os.O_RDWR):
        for use in (lambda: read_history(path, "bundle"), lambda: append_history(path, SECOND)):
            with pytest.raises(HeldError, match=re.escape(f"{path}: another run holds it")):
                use()
    assert append_history(path, SECOND)


def test_what_cannot_be_a_history_is_refused_before_scoring(path: Path, tmp_path: Path) -> None:
    cases: list[tuple[Path, type[LymphoError], str]] = [
        (tmp_path / "absent/history.jsonl", OutputError, "cannot be created: its folder does not exist"),
        (tmp_path, OutputError, "cannot be read and written (Is a directory)"),
        (path, UsageError, "is not a file. Give another one"),
    ]
    os.mkfifo(path)
    for place, kind, why in cases:
        with pytest.raises(kind, match=re.escape(why)):
            read_history(place, "bundle")


def test_it_may_not_lie_in_the_cohort_nor_be_a_result(tmp_path: Path) -> None:
    cohort, out = tmp_path / "cohort", tmp_path / "out"
    cohort.mkdir()
    (tmp_path / "link").symlink_to(cohort)
    check_place(out / "history.jsonl", [("the cohort, which is never written to", cohort)], (out / "run.json",))
    for inside in (cohort / "history.jsonl", tmp_path / "link/history.jsonl", cohort / "P1/../h"):
        with pytest.raises(UsageError, match="lies inside the cohort, which is never written to"):
            check_place(inside, [("the cohort, which is never written to", cohort)])
    with pytest.raises(UsageError, match=r"lies inside .*/report, which holds nothing but a run's own files"):
        check_place(out / "report/h", no_file_in(out, cohort))
    with pytest.raises(UsageError, match="is a file that every run replaces"):
        check_place(out / "../out/run.json", [("the cohort, which is never written to", cohort)], (out / "run.json",))
