"""Yesterday's results stay readable until today's are complete, whatever breaks in between."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infer.errors import OutputError
from infer.machine.disk import sync
from infer.output.exchange import broke_off, exchange, remove_earlier, settle
from infer.output.names import NAMES, RECORD, part_of
from infer.output.pages import PAGES
from infer.output.results import Results
from tests.infer.runs import TINY, Cut, Outcome, cut, names, score, set_count

PAGE = f"{PAGES}/index.html"


def files(folder: Path) -> dict[str, str]:
    """All files that a person would see, and what they say."""
    seen = sorted(path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0][0] != ".")
    return {str(path.relative_to(folder)): path.read_text() for path in seen}


def write_parts(folder: Path) -> None:
    for name in NAMES:
        part_of(folder, name).write_text("today's")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished run's files, and the next one's under their temporary names."""
    folder = tmp_path / "out"
    (folder / PAGES).mkdir(parents=True)
    for name in (*NAMES, PAGE):
        (folder / name).write_text("yesterday's")
    write_parts(folder)
    return folder


def shown(text: str) -> dict[str, str]:
    pages = [PAGE] if text == "yesterday's" else []
    return dict.fromkeys(sorted([*pages, *(name for name in NAMES if name[0] != ".")]), text)


def steps(folder: Path, monkeypatch: pytest.MonkeyPatch, last: int, end: Callable[[], BaseException]) -> int:
    """Exchange with an end after so many renames and removals. Returns how many there were."""
    done = 0

    def counting(works: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            if done == last:
                done += 1000  # only once
                raise end()
            done += 1
            return works(*arguments, **named)

        return step

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink", "rmdir"):
            patch.setattr(os, name, counting(getattr(os, name)))
        exchange(folder)
        remove_earlier(folder)
    return done


def never() -> BaseException:
    raise AssertionError


STEPS = 1 + 6 + 6  # pages and six files are hidden, six get their names
REMOVED = 2 + 6  # the page, its folder and six files


def test_all_change_places(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files(out) == shown("yesterday's")
    assert steps(out, monkeypatch, -1, never) == STEPS + REMOVED
    assert files(out) == shown("today's")
    assert names(out) == sorted(NAMES)
    assert not broke_off(out)


@pytest.mark.parametrize("last", range(STEPS + REMOVED))
def test_killed_anywhere_it_is_settled(out: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """run.json never lies beside another run's files; the next start leaves all of one run's, none of the other's."""
    with pytest.raises(Cut):
        steps(out, monkeypatch, last, Cut)
    if RECORD in names(out):
        record = (out / RECORD).read_text()
        assert {text for name, text in files(out).items() if not name.startswith(PAGES)} == {record}
        assert not (record == "today's" and (out / PAGES).exists())
    settle(out)
    assert files(out) == shown("yesterday's" if last < STEPS else "today's")
    assert not broke_off(out)
    if last < STEPS:
        assert all(part_of(out, name).read_text() == "today's" for name in NAMES)


@pytest.mark.parametrize("last", range(STEPS))
@pytest.mark.parametrize("then", range(12))
def test_killed_again_while_it_is_settled(out: Path, monkeypatch: pytest.MonkeyPatch, last: int, then: int) -> None:
    with pytest.raises(Cut):
        steps(out, monkeypatch, last, Cut)
    works, done = os.rename, 0

    def rename(*paths: Any) -> None:
        nonlocal done
        if done == then:
            raise Cut
        done += 1
        works(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        patch.setattr(os, "replace", rename)
        try:
            settle(out)
        except Cut:
            assert RECORD not in names(out) or set(files(out).values()) == {"yesterday's"}
    settle(out)
    assert files(out) == shown("yesterday's")


@pytest.mark.parametrize("last", range(12))
def test_a_first_run_leaves_all_or_nothing(out: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    for name in (*NAMES, PAGE):
        (out / name).unlink()
    (out / PAGES).rmdir()
    with pytest.raises(Cut):
        steps(out, monkeypatch, last, Cut)
    settle(out)
    assert files(out) in ({}, shown("today's"))
    assert (RECORD in files(out)) == (last >= 12)


def test_pages_of_no_finished_run_never_come_back(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / RECORD).unlink()
    with pytest.raises(Cut):
        steps(out, monkeypatch, 8, Cut)
    settle(out)
    assert not (out / PAGES).exists()


@pytest.mark.parametrize("name", ["predictions.csv", "images.csv", "run.json", "run.log"])
def test_a_table_opened_during_the_night_leaves_yesterdays_and_the_journal(
    pristine: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """On a share, a file that somebody has open in a spreadsheet cannot be renamed. Closed again, the run goes on."""
    out = tmp_path / "out"
    score(pristine, out, report=True)
    before = {one: data for one, data in files(out).items() if one != "last_run.json"}
    set_count(cohort, "S001", "33")
    works, opened = os.rename, False

    def rename(source: Any, target: Any, **named: Any) -> None:
        if opened and Path(source) == out / name:
            raise PermissionError(errno.EACCES, "Permission denied", str(source))
        works(source, target, **named)

    def open_it(results: Any, *arguments: Any) -> Any:
        nonlocal opened
        opened = True
        return finishes(results, *arguments)

    finishes = Results.finish
    with monkeypatch.context() as patch:
        patch.setattr(Results, "finish", open_it)
        patch.setattr(os, "rename", rename)
        with pytest.raises(OutputError) as caught:
            score(cohort, out, report=True)
    assert caught.value.exit_code == 7
    assert str(caught.value).startswith(f"{out / name}: cannot be written (Permission denied)")
    assert {one: data for one, data in files(out).items() if one != "last_run.json"} == before
    outcome = score(cohort, out)
    assert outcome.record["kept_from_earlier_starts"] == 6
    assert outcome.predictions["S001"]["lymph_count"] == "33"
    assert not (out / PAGES).exists()


def test_results_stay_while_the_next_night_scores(
    plain: Outcome, pristine: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = score(pristine, out)
    run = first.record["run"]
    set_count(cohort, "S001", "33")
    writes, seen = Results.write, []

    def cut(results: Results, line: int, result: Any) -> None:
        seen.append((Outcome(0, out).csv_bytes == plain.csv_bytes, Outcome(0, out).record["run"] == run))
        writes(results, line, result)
        if len(seen) == 3:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Results, "write", cut)
        with pytest.raises(Cut):
            score(cohort, out)
    assert seen == [(True, True)] * 3
    assert Outcome(0, out).csv_bytes == plain.csv_bytes
    second = score(cohort, out)  # its journal is told from one of the run that run.json is of
    assert second.record["kept_from_earlier_starts"] == 3
    assert second.record["run"] != run
    assert second.csv_bytes != plain.csv_bytes
    assert score(cohort, out).record["kept_from_earlier_starts"] == 0


def test_a_share_that_is_away_for_a_moment_costs_nothing(pristine: Path, cohort: Path, tmp_path: Path) -> None:
    """The exchange fails, and so does taking it back: the next start tells old from new by the temporary names."""
    out = tmp_path / "out"
    yesterday = score(pristine, out).csv_bytes
    set_count(cohort, "S001", "33")
    works, away = os.rename, 0

    def rename(source: Any, target: Any, **named: Any) -> None:
        nonlocal away
        if Path(target).name == ".images.csv.earlier" or away == 1:
            away += 1
            raise OSError(errno.EIO, "Input/output error", str(source))
        works(source, target, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(OutputError):
            score(cohort, out)
    assert away == 2
    assert score(pristine, out, dry_run=True).code == 0
    assert Outcome(0, out).csv_bytes == yesterday
    assert score(cohort, out).record["kept_from_earlier_starts"] == 6


@pytest.mark.parametrize("end", [SystemExit(143), OSError(errno.EIO, "Input/output error")])
def test_what_fails_after_the_exchange_does_not_call_it_unfinished(
    pristine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    end: BaseException,
) -> None:
    works = sync

    def fails(path: Any) -> str:
        if (tmp_path / RECORD).exists():
            raise end
        return works(path)

    monkeypatch.setattr("infer.output.exchange.sync", fails)
    with pytest.raises((SystemExit, OutputError)):
        score(pristine, tmp_path)
    assert "stopped after the tables were complete: use them" in caplog.text
    assert "The same command goes on" not in caplog.text
    assert len(Outcome(0, tmp_path).predictions) == 6


def test_somebodys_file_among_the_pages_costs_no_page(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / PAGES / "notes.txt").write_text("mine")
    with pytest.raises(Cut):
        steps(out, monkeypatch, 10, Cut)
    assert sorted(os.listdir(out / PAGES)) == ["notes.txt"]
    settle(out)
    assert files(out) == shown("yesterday's") | {f"{PAGES}/notes.txt": "mine"}
    exchange(out)
    remove_earlier(out)
    assert files(out) == shown("today's") | {f"{PAGES}/notes.txt": "mine"}


@pytest.mark.parametrize("broken", ["unreadable", "a folder", "no JSON"])
def test_a_run_json_that_cannot_be_read_can_be_replaced(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Another user's, mode 640: its folder is ours."""
    cut(pristine, tmp_path, 2)
    (tmp_path / RECORD).write_text("{")
    reads = Path.read_text

    def read(self: Path, **named: Any) -> str:
        if self.name == RECORD and broken == "unreadable":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return reads(self, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", read)
        if broken == "a folder":
            (tmp_path / RECORD).unlink()
            (tmp_path / RECORD).mkdir()
            with pytest.raises(OutputError, match="Is a directory"):
                score(pristine, tmp_path, bundle=TINY)
            (tmp_path / RECORD).rmdir()
        code = score(pristine, tmp_path, bundle=TINY).code
    assert code == 0
    assert Outcome(0, tmp_path).record["kept_from_earlier_starts"] == 2
