"""What OUT's file system cannot do is detected before anything is scored or removed, also by a dry run."""

import contextlib
import errno
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from infer.errors import HeldError, LymphoError, OutputError
from infer.machine.disk import sync, sync_note
from infer.output.checks import PROBE, aside
from infer.output.folder import check_folder, unfinished, unfinished_size
from infer.output.journal import FORMAT, JOURNAL, Header, Identity, line_of
from infer.output.kinds import FOLDERS
from infer.output.lock import LOCK
from infer.output.names import LAST_RUN, MOVED
from infer.output.results import Results
from tests.infer import runs
from tests.infer.runs import LEFT, RESULT_FILES, TINY, Outcome, cut, names

IDENTITY: dict[str, Any] = {field.name: "" for field in fields(Identity)}
HEADER = Header(FORMAT, Identity(**IDENTITY), "2019-07-01")
CANNOT_BE_REMOVED = (
    "must be replaced by the new results but cannot be removed ({}). If it is open in a spreadsheet, close it; if it "
    "is protected or belongs to another user, have it removed; or choose another folder. Nothing was changed"
)


def score(cohort: Path, out: Path, **options: Any) -> Outcome:
    return runs.score(cohort, out, **({"bundle": TINY} | options))


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


def error_of(*arguments: Any, **options: Any) -> LymphoError:
    with pytest.raises(LymphoError) as caught:
        score(*arguments, **options)
    return caught.value


def same_error(cohort: Path, out: Path, **options: Any) -> LymphoError:
    """The same error from a dry run and from a run; neither may change anything."""
    before = content(out) if out.is_dir() else None
    dry = error_of(cohort, out, dry_run=True, **options)
    assert (content(out) if out.is_dir() else None) == before
    real = error_of(cohort, out, **options)
    assert (content(out) if out.is_dir() else None) == before
    assert (type(dry), str(dry)) == (type(real), str(real))
    return real


def fail(monkeypatch: pytest.MonkeyPatch, call: str, number: int, *paths: Path) -> None:
    """From here on, this function of os fails for these paths."""
    works = getattr(os, call)

    def fails(path: Any, *arguments: Any, **named: Any) -> Any:
        if not isinstance(path, int) and Path(path) in paths:
            raise OSError(number, os.strerror(number), str(path))
        return works(path, *arguments, **named)

    monkeypatch.setattr(os, call, fails)


@contextlib.contextmanager
def flagged(path: Path, flag: str) -> Iterator[None]:
    """`chattr +i` or `+a`; skips the test if that is not possible."""
    tool = shutil.which("chattr")
    if tool is None or subprocess.run([tool, f"+{flag}", path], capture_output=True, check=False).returncode:
        pytest.skip("chattr cannot be used here")
    try:
        yield
    finally:
        subprocess.run([tool, f"-{flag}", path], check=True)


@pytest.fixture
def old(plain: Outcome, tmp_path: Path) -> Path:
    """A folder with yesterday's results."""
    return Path(shutil.copytree(plain.out, tmp_path / "old"))


@pytest.fixture(scope="module")
def plain(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return score(pristine, tmp_path_factory.mktemp("plain") / "out")


# File systems that cannot sync


def fail_sync(monkeypatch: pytest.MonkeyPatch, number: int, *, files: bool, folders: bool) -> None:
    works = os.fsync

    def fails(descriptor: int) -> None:
        if folders if stat.S_ISDIR(os.fstat(descriptor).st_mode) else files:
            raise OSError(number, os.strerror(number))
        works(descriptor)

    monkeypatch.setattr(os, "fsync", fails)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_what_a_file_system_cannot_sync_is_told_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fail_sync(monkeypatch, number, files=True, folders=True)
    with (tmp_path / "file").open("w") as file:
        assert sync(file.fileno()) == f"files ({os.strerror(number)})"
    assert sync(tmp_path) == f"folders ({os.strerror(number)})"
    monkeypatch.undo()
    with (tmp_path / "file").open("w") as file:
        assert sync(file.fileno()) == ""
    assert sync(tmp_path) == ""


@pytest.mark.parametrize("call", ["fsync", "open"])
@pytest.mark.parametrize("number", [errno.EBADF, errno.EISDIR, errno.EACCES])
def test_a_folder_that_cannot_be_opened_for_it_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    if call == "fsync":
        fail_sync(monkeypatch, number, files=True, folders=True)
        with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match=os.strerror(number)):
            sync(file.fileno())
    else:
        fail(monkeypatch, call, number, tmp_path)
    assert sync(tmp_path) == f"folders ({os.strerror(number)})"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fail_sync(monkeypatch, number, files=True, folders=True)
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match=os.strerror(number)):
        sync(file.fileno())
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "gone")


NOTE = "OUT's file system cannot sync {}. Results written shortly before a power failure may be lost"


def test_the_sentence_by_value() -> None:
    assert sync_note([]) == sync_note(["", ""]) == ""
    assert sync_note(["folders (B)", "", "files (A)", "files (A)"]) == NOTE.format("files (A) and folders (B)")


@pytest.mark.parametrize(
    ("files", "folders", "what"),
    [
        (False, True, "folders (Invalid argument)"),
        (True, True, "files (Invalid argument) and folders (Invalid argument)"),
    ],
)
def test_a_run_where_nothing_can_be_synced_finishes_and_says_so(
    plain: Outcome,
    pristine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    files: bool,
    folders: bool,
    what: str,
) -> None:
    out, note = tmp_path / "out", NOTE.format(what)
    fail_sync(monkeypatch, errno.EINVAL, files=files, folders=folders)
    assert score(pristine, out, dry_run=True).code == 0
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [message for message in warnings if "sync" in message] == [note]
    assert not out.exists()
    cut(pristine, out)
    outcome = score(pristine, out)
    assert (outcome.code, outcome.csv_bytes, names(out)) == (0, plain.csv_bytes, RESULT_FILES)
    assert (outcome.record["synced"], outcome.record["sync_note"]) == (False, note)
    assert outcome.record["kept_from_earlier_starts"] == 2
    assert (out / "run.log").read_text().count(f"WARNING {note}") == 2  # once per start
    monkeypatch.undo()
    assert score(pristine, out).record["synced"] is True
    assert "cannot sync" not in (out / "run.log").read_text()


def test_what_can_no_longer_be_synced_under_way_is_said(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Results.finish

    def late(self: Results, *arguments: Any) -> None:
        fail_sync(monkeypatch, errno.ENOSYS, files=True, folders=False)
        finish(self, *arguments)

    monkeypatch.setattr(Results, "finish", late)
    record = score(pristine, tmp_path).record
    assert record["sync_note"] == NOTE.format("files (Function not implemented)")
    assert (tmp_path / "run.log").read_text().count("WARNING OUT's file system cannot sync files") == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_is_7_and_yesterdays_results_stay(
    pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fail_sync(monkeypatch, number, files=False, folders=True)
    error = same_error(pristine, old)
    assert error.exit_code == 7
    assert str(error).startswith(f"{old}: cannot be written ({os.strerror(number)})")


# Files that cannot be removed


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EACCES, errno.ETXTBSY, errno.EPERM])
@pytest.mark.parametrize("name", RESULT_FILES)
def test_a_result_that_cannot_be_removed_is_7_before_anything_else_is(
    pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    for call in ("rename", "replace", "unlink"):
        fail(monkeypatch, call, number, old / name)
    before = content(old)
    for leave in (True, False):
        with pytest.raises(OutputError) as caught:
            check_folder(old, None) if leave else Results(old, HEADER, "now", None)
        assert str(caught.value) == f"{old / name}: {CANNOT_BE_REMOVED.format(os.strerror(number))}"
        assert content(old) == before


def test_a_run_and_a_dry_run_say_the_same_of_it(pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in ("rename", "replace", "unlink"):
        fail(monkeypatch, call, errno.EBUSY, old / "images.csv")
    error = same_error(pristine, old)
    assert error.exit_code == 7
    assert str(error) == f"{old / 'images.csv'}: {CANNOT_BE_REMOVED.format('Device or resource busy')}"


@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("name", ["predictions.csv", ".predictions.csv.part", ".run.log.part", JOURNAL])
def test_a_protected_file_is_7(pristine: Path, old: Path, name: str, flag: str) -> None:
    (old / name).touch()
    with flagged(old / name, flag):
        error = same_error(pristine, old)
    assert error.exit_code == 7
    assert str(error) == f"{old / name}: {CANNOT_BE_REMOVED.format('Operation not permitted')}"
    assert score(pristine, old).code == 0


def test_a_folder_in_a_files_place_is_7(pristine: Path, old: Path) -> None:
    (old / "run.log").unlink()
    (old / "run.log").mkdir()
    for leave in (True, False):
        with pytest.raises(OutputError) as caught:
            check_folder(old, None) if leave else Results(old, HEADER, "now", None)
        assert str(caught.value) == f"{old / 'run.log'}: {CANNOT_BE_REMOVED.format('Is a directory')}"
        assert names(old) == RESULT_FILES


def test_another_users_leftovers_are_removed_where_they_could_not_be_written_over(
    pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our folder contains files of another user."""
    left = [old / name for name in (JOURNAL, ".predictions.csv.part", ".run.log.part", ".run.json.part")]
    for path in left:
        path.touch()
    opens = os.open
    inodes = {path.stat().st_ino for path in left}

    def refused(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        with contextlib.suppress(FileNotFoundError):
            if flags & (os.O_WRONLY | os.O_RDWR) and Path(path).stat().st_ino in inodes:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opens(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", refused)
    assert score(pristine, old).code == 0
    assert names(old) == RESULT_FILES


# The journal of an interrupted run


@pytest.mark.parametrize("name", LEFT)
def test_an_unfinished_run_that_cannot_be_written_on_is_7(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    out = tmp_path / "out"
    cut(pristine, out)
    opens = os.open

    def refused(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY) and Path(path) == out / name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opens(path, flags, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        error = same_error(pristine, out)
    assert str(error) == (
        f"{out / name}: belongs to an unfinished run and cannot be written (Permission denied). "
        "Run as the user who started it, or choose another folder"
    )
    assert score(pristine, out).record["kept_from_earlier_starts"] == 2


@pytest.mark.parametrize("flag", ["i", "a"])
def test_a_protected_unfinished_run_is_7(pristine: Path, tmp_path: Path, flag: str) -> None:
    cut(pristine, tmp_path / "out")
    with flagged(tmp_path / "out" / JOURNAL, flag):
        error = same_error(pristine, tmp_path / "out")
    assert "belongs to an unfinished run" in str(error)
    assert score(pristine, tmp_path / "out").record["kept_from_earlier_starts"] == 2


def test_a_journal_that_a_run_goes_on_from_keeps_its_name(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(pristine, tmp_path / "out")
    fail(monkeypatch, "rename", errno.EPERM, tmp_path / "out" / JOURNAL)
    assert score(pristine, tmp_path / "out", dry_run=True).code == 0
    assert score(pristine, tmp_path / "out").record["kept_from_earlier_starts"] == 2


# Killed between setting aside and putting back

KILLED = """
import os, sys
from pathlib import Path
from infer.output.folder import check_folder

left, works = int(sys.argv[2]), os.rename

def rename(*paths):
    global left
    works(*paths)
    left -= not str(paths[0]).count(".probe")
    if not left:
        os._exit(9)

os.rename = rename
check_folder(Path(sys.argv[1]), None)
"""


def kill_after(folder: Path, renames: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(renames)], check=False)
    assert done.returncode == 9


@pytest.mark.parametrize("renames", range(1, 12))
def test_killed_while_files_are_set_aside(
    old: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, renames: int
) -> None:
    """run.json never exists without its tables, its run's journal is ignored, and the next run restores everything."""
    (old / JOURNAL).write_bytes(line_of({"run": json.loads((old / "run.json").read_text())["run"]}))
    before = content(old)
    kill_after(old, renames)
    left = names(old)
    assert [name for name in left if name.endswith(".aside")]
    assert "run.json" not in left or not set(RESULT_FILES) - set(left)
    assert unfinished_size(old) == 0
    check_folder(old, None)
    assert content(old) == before | {LOCK: b""}  # left by the killed run
    assert f"{old / 'run.json'}: restored; a killed run had set it aside" in caplog.text


def test_killed_before_a_run_that_starts_over(pristine: Path, tmp_path: Path) -> None:
    """The unfinished run is still found, and can be resumed."""
    cut(pristine, tmp_path)
    stored = unfinished(tmp_path)
    before = content(tmp_path)
    kill_after(tmp_path, 1)
    assert JOURNAL not in names(tmp_path)
    assert stored is not None
    assert unfinished(tmp_path) == stored
    assert score(pristine, tmp_path, dry_run=True).code == 0
    assert content(tmp_path) == before | {LOCK: b""}
    kill_after(tmp_path, 2)
    assert score(pristine, tmp_path).record["kept_from_earlier_starts"] == 2
    assert names(tmp_path) == RESULT_FILES


@pytest.mark.parametrize("renames", range(1, 15))
@pytest.mark.parametrize("end", [SystemExit(143), OSError(errno.EBUSY, "Device or resource busy")])
def test_a_signal_or_a_passing_error_leaves_every_name(
    old: Path, monkeypatch: pytest.MonkeyPatch, renames: int, end: BaseException
) -> None:
    works, count = os.rename, 0

    def rename(*paths: Any) -> None:
        nonlocal count
        if not Path(paths[0]).name.startswith(PROBE):
            count += 1
        if count == renames and isinstance(end, OSError):
            count += 100
            raise end
        works(*paths)
        if count == renames:
            count += 100
            raise end

    before = content(old)
    monkeypatch.setattr("infer.output.checks.PAUSE", 0)
    monkeypatch.setattr(os, "rename", rename)
    # Seven files are set aside and seven restored; after an error, restoring is retried.
    ends = isinstance(end, SystemExit) or renames <= 7
    with pytest.raises((SystemExit, OutputError)) if ends else contextlib.nullcontext():
        check_folder(old, None)
    assert content(old) == before


def test_a_file_that_does_not_come_back_is_named_and_kept(
    pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(old)
    hidden = aside(old / "images.csv")
    monkeypatch.setattr("infer.output.checks.PAUSE", 0)
    fail(monkeypatch, "rename", errno.EBUSY, hidden)
    message = (
        f"{hidden}: is an earlier images.csv that cannot be renamed back (Device or resource busy). "
        "The next run tries again"
    )
    for dry_run in (True, False):
        assert str(error_of(pristine, old, dry_run=dry_run)) == message
    assert "run.json" not in names(old)
    monkeypatch.undo()
    assert score(pristine, old, dry_run=True).code == 0
    assert content(old) == before


def test_a_file_set_aside_is_not_written_over(pristine: Path, old: Path) -> None:
    hidden = aside(old / "predictions.csv")
    hidden.write_text("yesterday's")
    error = same_error(pristine, old)
    assert error.exit_code == 7
    assert str(error) == (
        f"{hidden}: is an earlier predictions.csv that a killed run set aside, and a new predictions.csv exists. "
        "Remove one of them, or choose another folder"
    )
    hidden.unlink()
    assert score(pristine, old).code == 0


def test_everything_that_a_run_removes_is_tried() -> None:
    parts = [f".{name.lstrip('.')}.part" for name in RESULT_FILES]
    assert sorted(MOVED) == sorted([JOURNAL, *FOLDERS, *RESULT_FILES, *parts, LAST_RUN])


# The folder itself


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_7_before_anything_is_removed(
    pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", full)
    for leave in (True, False):
        before = content(old)
        with pytest.raises(OutputError) as caught:
            check_folder(old, None) if leave else Results(old, HEADER, "now", None)
        assert str(caught.value).startswith(f"{old}: cannot be written ({os.strerror(number)}). Make room")
        assert content(old) == before


@pytest.mark.parametrize("call", ["rename", "unlink"])
def test_a_folder_that_lets_nothing_be_removed_is_7(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Simulated: the probe, which a real folder would keep, can be removed afterwards."""
    works, failed = getattr(os, call), 0

    def fails(path: Any, *arguments: Any) -> None:
        nonlocal failed
        if Path(path).name.startswith(PROBE) and Path(path).exists() and not failed:
            failed = 1
            raise PermissionError(errno.EPERM, "Operation not permitted")
        works(path, *arguments)

    monkeypatch.setattr(os, call, fails)
    out = tmp_path / "out"
    for dry_run in (True, False):
        failed = 0
        error = error_of(pristine, out, dry_run=dry_run)
        assert str(error) == (
            f"{out}: a file can be created there, but not renamed and removed (Operation not permitted). "
            "Choose another folder"
        )
        assert not out.exists()


@pytest.mark.parametrize("was_there", [False, True])
def test_an_append_only_folder_is_7_and_gets_no_file(
    pristine: Path, old: Path, tmp_path: Path, was_there: bool
) -> None:
    folder = old if was_there else tmp_path / "empty"
    folder.mkdir(exist_ok=True)
    with flagged(folder, "a"):
        error = same_error(pristine, folder)
    assert error.exit_code == 7
    assert str(error) == f"{folder}: is append-only: files created there cannot be removed. Choose another folder"


def test_a_protected_folder_is_7(pristine: Path, old: Path) -> None:
    with flagged(old, "i"):
        error = same_error(pristine, old)
    assert error.exit_code == 7
    assert str(error).startswith(f"{old / LOCK}: cannot be written (Operation not permitted). This run is user")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_made_is_7_and_leaves_no_other(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    out = tmp_path / "a" / "b" / "out"
    fail(monkeypatch, "mkdir", number, out)
    error = same_error(pristine, out)
    assert error.exit_code == 7
    assert str(error).startswith(f"{out}: cannot be written ({os.strerror(number)}). ")
    assert names(tmp_path) == []


def test_a_name_that_no_folder_can_have_is_7(pristine: Path, tmp_path: Path) -> None:
    error = same_error(pristine, tmp_path / "a" / ("x" * 300))
    assert error.exit_code == 7
    assert "File name too long" in str(error)
    assert names(tmp_path) == []


def test_a_file_in_the_folders_place_is_7(pristine: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert same_error(pristine, tmp_path / "out").exit_code == 7
    assert same_error(pristine, tmp_path / "out" / "below").exit_code == 7
    assert content(tmp_path) == {"out": b"a file"}


def test_a_held_folder_is_8_and_not_looked_into(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer.output.lock.PATIENCE", 0)
    with Results(old, HEADER, "now", None):
        before = content(old)
        monkeypatch.setattr(os, "rename", lambda *_: pytest.fail("another run's file was renamed"))
        with pytest.raises(HeldError):
            check_folder(old, None)
        assert content(old) == before


@pytest.mark.parametrize("leave", [True, False])
def test_a_journal_that_another_run_went_on_with_just_now_is_8(pristine: Path, tmp_path: Path, leave: bool) -> None:
    cut(pristine, tmp_path)
    stored = unfinished(tmp_path)
    assert stored is not None
    cut(pristine, tmp_path)
    before = content(tmp_path)
    with pytest.raises(HeldError, match="another run has just used it"):
        check_folder(tmp_path, stored) if leave else Results(tmp_path, stored.header, "now", stored)
    assert content(tmp_path) == before


def test_a_dry_run_leaves_a_killed_runs_files(pristine: Path, tmp_path: Path) -> None:
    """Including its lock; and folders created by the dry run are removed."""
    cut(pristine, tmp_path)
    for name in (LOCK, ".predictions.csv.part", "notes.txt"):
        (tmp_path / name).write_text(name)
    before = content(tmp_path)
    assert score(pristine, tmp_path, dry_run=True).code == 0
    assert score(pristine, tmp_path, dry_run=True, operating_point="sensitivity-95").code == 0
    assert content(tmp_path) == before
    assert score(pristine, tmp_path / "new" / "out", dry_run=True).code == 0
    assert content(tmp_path) == before
    for name in (PROBE, f"{PROBE}.renamed"):  # left by a killed dry run
        (tmp_path / name).touch()
    assert score(pristine, tmp_path).record["kept_from_earlier_starts"] == 2
    assert names(tmp_path) == sorted([*RESULT_FILES, "notes.txt"])
