"""The output folder before a run: what an earlier run left there, and whether everything that a run does will work."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from infer.errors import HeldError, OutputError
from infer.machine.disk import make_folder, sync_note
from infer.output.advice import advice
from infer.output.checks import (
    aside,
    check_not_append_only,
    check_removable,
    check_writing,
    exists,
    probe,
    put_back,
)
from infer.output.exchange import broke_off, settle
from infer.output.journal import JOURNAL, Stored, read_journal, run_of
from infer.output.lock import Lock, held
from infer.output.names import LOG_FILE, MOVED, RECORD, part_of

LOG = logging.getLogger("lympho")


def unfinished(folder: Path) -> Stored | None:
    """The interrupted run in a folder, or None if the last run finished or there was none.

    Raises:
        OutputError: it exists but cannot be read.
    """
    with output_errors(folder):
        return read_journal(_standing(folder / JOURNAL)) if unfinished_size(folder) else None


def unfinished_size(folder: Path) -> int:
    """Size in bytes of an interrupted run's journal; 0 if there is none, or only that of the run that run.json is of.

    Raises:
        OutputError: the folder cannot be read.
    """
    with output_errors(folder):
        finished = _finished_run(_standing(folder / RECORD))
        journal = _standing(folder / JOURNAL)
        try:
            size = journal.stat().st_size
        except FileNotFoundError:
            return 0
        return 0 if finished and finished == run_of(journal) else size


def check_folder(folder: Path, resumed: Stored | None) -> None:
    """For a dry run: make the checks that `Results` makes before it removes anything, and leave the folder as it was.

    Files that a killed run had set aside do get their names back.

    Args:
        resumed: as for `Results`.

    Raises:
        HeldError: another run has locked the folder.
        OutputError: the folder cannot be created or written, or an earlier run's file cannot be removed.
    """
    with output_errors(folder), found_good(folder, resumed, leave=True) as (_, unsynced):
        note = sync_note(unsynced)
    if note:
        LOG.warning("%s", note)


@contextlib.contextmanager
def found_good(folder: Path, resumed: Stored | None, *, leave: bool = False) -> Iterator[tuple[Lock, set[str]]]:
    """Create and lock the folder, and try everything that a run will do there, before anything in it is removed.

    Args:
        resumed: as for `Results`.
        leave: leave the folder as it was; remove it if it did not exist.

    Yields:
        The lock, and what the file system cannot sync.

    Raises:
        HeldError, OutputError, OSError: as for `Results`; folders created here are removed again.
    """
    with contextlib.ExitStack() as undo:
        # Innermost folder first, the order in which they must be removed again.
        undo.callback(_remove_empty, [path for path in (folder, *folder.parents) if not os.path.lexists(path)])
        unsynced = make_folder(folder)
        check_not_append_only(folder)
        with held(folder, leave=leave) as lock:
            for name in put_back(folder, MOVED):
                LOG.warning("%s: restored; a killed run had set it aside", folder / name)
            if broke_off(folder):
                settle(folder)
                LOG.warning("%s: a run was killed while its results took their names; set right", folder)
            if resumed and unfinished(folder) != resumed:
                raise HeldError(f"{folder}: another run has just used it. Start this run again")
            unsynced |= probe(folder)
            if resumed:
                check_writing(folder / JOURNAL)  # never set aside: it contains all finished patients
                check_writing(part_of(folder, LOG_FILE))
            check_removable(folder, [name for name in MOVED if not (resumed and name == JOURNAL)])
            if not leave:
                undo.pop_all()
            yield lock, unsynced


def _finished_run(record: Path) -> str | None:
    """The ID of the run that a run.json is of; None if there is none, or it was written before runs had one."""
    try:
        run = json.loads(record.read_text(encoding="utf-8")).get("run")
    except (FileNotFoundError, ValueError, AttributeError):
        return None
    return run if isinstance(run, str) else None


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _standing(path: Path) -> Path:
    """Where a file is now: a killed run may have set it aside."""
    hidden = aside(path)
    return hidden if not exists(path) and exists(hidden) else path


@contextlib.contextmanager
def output_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        path = Path(os.fsdecode(error.filename or folder))
        do = advice(folder, error.errno)
        raise OutputError(f"{path}: cannot be written ({error.strerror}){f'. {do}' if do else ''}") from error
