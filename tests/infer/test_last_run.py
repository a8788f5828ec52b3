"""last_run.json: what a monitor reads, whatever became of the run."""

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import pytest

from infer.errors import CohortError, HeldError, LymphoError, OutputError
from infer.output.journal import FORMAT, Header, Identity
from infer.output.last_run import tell_last_run
from infer.output.names import LAST_RUN
from infer.output.results import Results
from tests.infer.runs import TINY, keep_patients, score

KEYS = ["program", "started", "ended", "exit_code", "exit_meaning", "message", "results_ended"]
HEADER = Header(FORMAT, Identity("0", "l", "b", "balanced", None, None, "n"), "2019-07-01")


def last_run(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / LAST_RUN).read_text(encoding="utf-8"))
    assert list(content) == KEYS
    return content


def test_after_a_run_that_finished(pristine: Path, cohort: Path, tmp_path: Path) -> None:
    outcome = score(pristine, tmp_path / "out")
    content = last_run(outcome.out)
    assert (content["exit_code"], content["exit_meaning"], content["message"]) == (0, "finished", "")
    assert content["started"] == outcome.record["starts"][0]
    assert content["results_ended"] == outcome.record["ended"] <= content["ended"]
    (cohort / "S001").rename(cohort / "elsewhere")
    score(cohort, tmp_path / "out")
    assert (last_run(outcome.out)["exit_code"], last_run(outcome.out)["message"]) == (3, "1 patient has failed")
    assert outcome.out.joinpath(LAST_RUN).stat().st_mode & 0o007 == 0


@pytest.mark.parametrize(
    ("code", "options", "said"),
    [
        (2, {"operating_point": "none"}, "--operating-point none: not in this bundle"),
        (4, {"annotations": Path("/nowhere.csv")}, "/nowhere.csv"),
        (5, {"bundle": Path("/nowhere")}, "/nowhere"),
        (6, {"device": "cuda"}, "cuda"),
    ],
)
def test_what_stops_a_run_is_told_beside_yesterdays_results(
    cohort: Path, tmp_path: Path, code: int, options: dict[str, Any], said: str
) -> None:
    yesterday = score(keep_patients(cohort, "S002"), tmp_path / "out")
    with pytest.raises(LymphoError) as caught:
        score(cohort, tmp_path / "out", **options)
    assert caught.value.exit_code == code
    content = last_run(tmp_path / "out")
    assert content["exit_code"] == code
    assert said in content["message"] == str(caught.value)
    assert content["results_ended"] == yesterday.record["ended"]
    assert len(yesterday.predictions) == 1


def test_a_held_folder_and_one_that_cannot_be_written(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infer.output.lock.PATIENCE", 0)
    with Results(tmp_path, HEADER, "now", None):
        with pytest.raises(HeldError):
            score(pristine, tmp_path)
        assert last_run(tmp_path)["exit_code"] == 8
    (tmp_path / "predictions.csv").mkdir()
    with pytest.raises(OutputError):
        score(pristine, tmp_path)
    content = last_run(tmp_path)
    assert content["exit_code"] == 7
    assert "predictions.csv: must be replaced" in content["message"]
    assert content["results_ended"] is None


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        (SystemExit(143), 143, "stopped by SIGTERM"),
        (MemoryError(), 1, "out of memory"),
        (ValueError("born 3/4/1950"), 1, "a bug (ValueError, test_last_run.py line "),
    ],
)
def test_a_run_that_broke_off(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException, code: int, message: str
) -> None:
    """While it goes on, and for ever if it is killed, the file says that it has begun."""
    seen: list[dict[str, Any]] = []

    def breaks(*_: Any) -> None:
        seen.append(last_run(tmp_path))
        raise end

    monkeypatch.setattr(Results, "write", breaks)
    with pytest.raises(type(end)):
        score(pristine, tmp_path)
    (begun,) = seen
    assert (begun["ended"], begun["exit_code"]) == (None, None)
    assert begun["exit_meaning"] == "has begun and not ended, or was killed"
    content = last_run(tmp_path)
    assert (content["exit_code"], content["started"]) == (code, begun["started"])
    assert content["message"].startswith(message)
    assert dt.datetime.fromisoformat(content["ended"]) >= dt.datetime.fromisoformat(content["started"])


def test_a_mistyped_path_costs_nobody_a_file(pristine: Path, tmp_path: Path) -> None:
    """OUT and PATIENTS exchanged, OUT inside PATIENTS, somebody's folder, no folder."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("")
    results = score(pristine, tmp_path / "results").out
    before = {folder: sorted(os.listdir(folder)) for folder in (pristine, home)}
    for patients, out in (
        (results, pristine),
        (pristine, pristine / "S001"),
        (home, home),
        (results, home),
        (results, tmp_path / "nowhere"),
    ):
        with pytest.raises(LymphoError):
            score(patients, out)
    assert {folder: sorted(os.listdir(folder)) for folder in before} == before
    assert not (tmp_path / "nowhere").exists()


def test_a_path_that_is_not_utf8_is_still_4(pristine: Path, tmp_path: Path) -> None:
    score(pristine, tmp_path / "out")
    with pytest.raises(CohortError) as caught:
        score(Path(os.fsdecode(b"/nowhere/caf\xe9")), tmp_path / "out")
    assert last_run(tmp_path / "out")["exit_code"] == caught.value.exit_code == 4


def test_one_that_was_set_aside_by_an_older_program_stops_nobody(pristine: Path, tmp_path: Path) -> None:
    score(pristine, tmp_path)
    (tmp_path / f".{LAST_RUN}.aside").write_text("{}")
    assert score(pristine, tmp_path).code == 0


def test_a_new_volume_and_a_dry_run(pristine: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "lost+found").mkdir(parents=True)
    with pytest.raises(LymphoError):
        score(pristine, volume, bundle=Path("/nowhere"), dry_run=True)
    assert score(pristine, volume, dry_run=True, bundle=TINY).code == 0
    assert os.listdir(volume) == ["lost+found"]
    with pytest.raises(LymphoError):
        score(pristine, volume, bundle=Path("/nowhere"))
    assert sorted(os.listdir(volume)) == [LAST_RUN, "lost+found"]


def test_if_it_cannot_be_written_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    tell_last_run(tmp_path, "now", None, None, "")
    assert f"{tmp_path / LAST_RUN}: cannot be written (No space left on device)" in caplog.text
    assert os.listdir(tmp_path) == []
