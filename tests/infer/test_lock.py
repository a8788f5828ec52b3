import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infer.errors import BundleError, HeldError
from infer.options import Options
from infer.output.lock import LOCK, held
from infer.output.results import Results
from infer.run import run
from infer.scoring.result import PatientResult
from tests.infer.runs import LEFT, RESULT_FILES, TINY, Cut, Outcome, names, score

HOLD = """
import sys
from pathlib import Path
from infer.output.lock import held

with held(Path(sys.argv[1])):
    print(1, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def _impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # a separate one, because some tests undo theirs
        patch.setattr("infer.output.lock.PATIENCE", 0)
        yield


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that locks the folder until it is killed."""
    line = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    return process


def test_a_folder_is_held_once_and_nothing_is_left(tmp_path: Path) -> None:
    with held(tmp_path):
        with pytest.raises(HeldError, match=f"{tmp_path}: another run holds it"), held(tmp_path):
            pass
        assert names(tmp_path) == [LOCK]
    with held(tmp_path):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("was_there", [False, True])
def test_a_dry_run_leaves_a_killed_runs_lock_where_it_was(tmp_path: Path, was_there: bool) -> None:
    if was_there:
        (tmp_path / LOCK).touch()
    with held(tmp_path, leave=True), pytest.raises(HeldError), held(tmp_path):
        pass
    assert names(tmp_path) == [LOCK] * was_there
    with held(tmp_path):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("leave", [False, True])
def test_a_folder_held_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave: bool, removed: bool
) -> None:
    """As by a dry run, which also removes the folder if it created it."""
    monkeypatch.setattr("infer.output.lock.PATIENCE", 30)
    out = tmp_path / "out"
    first = contextlib.ExitStack()
    if removed:
        first.callback(out.rmdir)
    first.enter_context(held(out))
    timer = threading.Timer(0.3, first.close)
    timer.start()
    with held(out, leave=leave) as lock:
        timer.join()
        lock.check()
    assert names(out) == []


def test_the_kernel_lets_go_when_the_holder_is_killed(tmp_path: Path) -> None:
    process = hold(tmp_path)
    with pytest.raises(HeldError), held(tmp_path):
        pass
    process.kill()
    process.communicate()
    assert names(tmp_path) == [LOCK]
    with held(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_lock_whose_file_was_removed_in_between_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The previous run removes its file after we opened it: two runs must not lock two files of the same name."""
    opens, opened = os.open, []

    def removed_under_way(path: Path, flags: int, *mode: int) -> int:
        descriptor = opens(path, flags, *mode)
        opened.append(descriptor)
        if len(opened) == 1:
            (tmp_path / LOCK).unlink()
        return descriptor

    monkeypatch.setattr(os, "open", removed_under_way)
    with held(tmp_path):
        assert len(opened) == 2
        monkeypatch.undo()
        with pytest.raises(HeldError), held(tmp_path):
            pass


def test_a_folder_made_anew_under_a_run_is_left_to_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with contextlib.ExitStack() as first:
        lock = first.enter_context(held(out))
        lock.check()
        shutil.rmtree(out)
        out.mkdir()
        with held(out) as another:
            assert not lock.holds()
            with pytest.raises(FileNotFoundError, match="removed or replaced"):
                lock.check()
            first.close()
            another.check()
            assert names(out) == [LOCK]


def test_a_held_folder_is_said_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the cohort nor the bundle is there; still the first thing to say is who holds OUT."""
    monkeypatch.setattr("infer.output.lock.PATIENCE", 0.05)
    out = tmp_path / "out"
    out.mkdir()
    with held(out), pytest.raises(HeldError, match="another run holds it"):
        run(Options(tmp_path / "nobody", out, bundle=tmp_path / "none"))
    with pytest.raises(BundleError):
        run(Options(tmp_path / "nobody", out, bundle=tmp_path / "none"))
    assert names(out) == []


def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"), held(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_two_runs_on_one_output_are_8_and_the_first_loses_nothing(
    plain: Outcome, pristine: Path, tmp_path: Path, dry_run: bool
) -> None:
    out = tmp_path / "out"
    score(pristine, out)
    process = hold(out)
    try:
        with pytest.raises(HeldError) as caught:
            score(pristine, out, dry_run=dry_run)
        assert caught.value.exit_code == 8
        assert str(caught.value) == f"{out}: another run holds it. Wait for it to end, or choose another folder"
        assert names(out) == [LOCK, *RESULT_FILES]
        assert Outcome(0, out).csv_bytes == plain.csv_bytes
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_second_run_takes_nothing_from_the_journal_of_the_first(
    pristine: Path, tmp_path: Path, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it would resume or start over, it must not change anything before it has the lock."""
    works, left = Results.write, 2

    def cut(self: Results, line: int, result: PatientResult) -> None:
        nonlocal left
        works(self, line, result)
        left -= 1
        if not left:
            raise Cut

    monkeypatch.setattr(Results, "write", cut)
    with pytest.raises(Cut):
        score(pristine, tmp_path, bundle=TINY)
    monkeypatch.undo()
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    assert set(before) == set(LEFT)
    with held(tmp_path), pytest.raises(HeldError):
        score(pristine, tmp_path, bundle=TINY, fresh=fresh)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
