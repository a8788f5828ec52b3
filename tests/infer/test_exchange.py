"""Yesterday's results stay readable until today's are complete, whatever breaks in between."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infer.errors import OutputError
from infer.output.exchange import broke_off, exchange, remove_earlier, settle
from infer.output.names import NAMES, RECORD, part_of
from infer.output.pages import PAGES
from tests.infer.runs import Cut, Outcome, names, score, set_count

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

    from infer.output.results import Results

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
    from infer.output.results import Results

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
