"""Journal, last_run.json and history: what was reported written is there after a power failure."""

import json
import random
from pathlib import Path

import msgspec
import pytest

from infer.drift.history import Line, append_history, tonights_line
from infer.output.journal import JOURNAL, SYNC_SECONDS, Journal, read_journal
from infer.output.last_run import tell_last_run
from infer.output.names import LAST_RUN
from tests.infer.test_journal import HEADER, of
from tests.power import Disk


class Clock:
    """The journal's time."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("seed", range(4))
def test_finished_patients_are_kept_but_for_those_of_one_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whoever was finished a second before the last one was is there; when the journal is closed, all are."""
    root = tmp_path / "root"
    root.mkdir()
    clock, draw = Clock(), random.Random(seed)
    monkeypatch.setattr("infer.output.journal.time.monotonic", clock.monotonic)
    begun: list[str] = []
    finished: dict[str, float] = {}
    closed = False
    lost = set()

    def check(state: Path) -> None:
        stored = read_journal(state / JOURNAL)
        there = list(stored.places) if stored else []
        assert there == begun[: len(there)]
        for patient_id, when in finished.items():
            if patient_id not in there:
                assert not closed
                assert max(finished.values()) - when < SYNC_SECONDS
                lost.add(patient_id)

    disk = Disk(root, check, seed=seed)
    with disk.watching():
        with Journal(root / JOURNAL, HEADER, "now", None) as journal:
            for number in range(12):
                clock.now += draw.choice([0.1, 0.4, 1.5])
                patient_id = f"P{number}"
                begun.append(patient_id)
                journal.append(of(patient_id))
                finished[patient_id] = clock.now
                disk.cut()
        closed = True
    assert lost  # else the disk lost nothing


def test_last_run_json_is_whole_and_the_last_one_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    told: list[int | None] = []

    def check(state: Path) -> None:
        path = state / LAST_RUN
        if told or path.exists():
            assert json.loads(path.read_text())["exit_code"] in {*told[-1:], *(() if finished else (None, 0))}

    finished = False
    disk = Disk(root, check)
    with disk.watching():
        for code in (None, 0):
            finished = False
            tell_last_run(root, "then", None if code is None else "now", code, "")
            told.append(code)
            finished = True
            disk.cut()


def test_a_line_of_the_history_is_there_once_it_is_appended(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    lines = [tonights_line("then", "bundle", f"run{number}", 5, {}) for number in range(3)]
    appended: list[Line] = []

    def check(state: Path) -> None:
        text = (state / "history").read_bytes() if (state / "history").exists() else b""
        assert text.startswith(b"".join(msgspec.json.encode(line) + b"\n" for line in appended))

    disk = Disk(root, check)
    with disk.watching():
        for line in lines:
            append_history(root / "history", line)
            appended.append(line)
            disk.cut()
    assert disk.states >= 20
