"""The output folder of one run: predictions.csv, images.csv, run.json and run.log, each there only when complete.

Until then finished patients stand in the journal, from which a run that was cut off goes on and the two tables are
written at the end, in the table's order.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from infer.cohort.patients import Patient
from infer.errors import HeldError, OutputError
from infer.machine.disk import sync, sync_note
from infer.output.checks import aside, check_not_append_only, check_removable, check_writing, exists, probe, put_back
from infer.output.csv import IMAGES, PREDICTIONS, Writer
from infer.output.journal import JOURNAL, Header, Journal, Stored, read_journal
from infer.output.lock import MODE, Lock, held
from infer.scoring.result import PatientResult

LOG = logging.getLogger("lympho")

RECORD, LOG_FILE = "run.json", "run.log"
NAMES = (RECORD, PREDICTIONS, IMAGES, LOG_FILE)  # removed in this order: run.json must not speak for what is gone
TABLES_AND_RECORD = (RECORD, PREDICTIONS, IMAGES)  # an unfinished run's parts of these mean nothing
PARTS = {name: f".{name}.part" for name in NAMES}  # names until all are complete
MOVED = (*NAMES, JOURNAL, *PARTS.values())  # all that a run renames or removes: set aside in this order


def unfinished(folder: Path) -> Stored | None:
    """What a run that was cut off left in a folder, or None: its last run finished, or there was none.

    Raises:
        OutputError: it is there and cannot be read.
    """
    with _output_errors(folder):
        return read_journal(_standing(folder / JOURNAL)) if unfinished_size(folder) else None


def unfinished_size(folder: Path) -> int:
    """Bytes of the journal of a run that was cut off; 0 if there is none.

    Raises:
        OutputError: the folder cannot be looked into.
    """
    with _output_errors(folder):
        if exists(_standing(folder / RECORD)):
            return 0
        try:
            return _standing(folder / JOURNAL).stat().st_size
        except FileNotFoundError:
            return 0


def check_folder(folder: Path, going_on: Stored | None) -> None:
    """For a dry run: find out all that `Results` finds out before it removes anything, and leave the folder as it was.

    What an earlier start that was killed had set aside gets its name back all the same.

    Args:
        going_on: as for `Results`.

    Raises:
        HeldError: another run holds the folder.
        OutputError: the folder cannot be made or written, or an earlier run's file cannot be removed.
    """
    with _output_errors(folder), _found_good(folder, going_on, leave=True) as (_, unsynced):
        note = sync_note(unsynced)
    if note:
        LOG.warning("%s", note)


class _LogFile(logging.StreamHandler[IO[str]]):
    """run.log. A line that cannot be written is left out: the journal finds out that the disk is full, and ends it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


class Results:
    """The output folder, locked. Leaving it without `finish` leaves the journal and no result file."""

    def __init__(self, folder: Path, header: Header, started: str, going_on: Stored | None) -> None:
        """Lock the folder and take away an earlier run's results, which would not belong to this one.

        Args:
            going_on: what `unfinished` found, where this run goes on from it.

        Raises:
            HeldError: another run holds the folder.
            OutputError: the folder cannot be made or written, or an earlier run's file cannot be removed. All of them
                are still there.
        """
        self.folder = folder
        self._places: dict[int, int] = {}  # line of the patient in the table -> where its entry stands
        with contextlib.ExitStack() as stack, _output_errors(folder):
            self._lock, self._unsynced = stack.enter_context(_found_good(folder, going_on))
            stack.callback(self._remove_parts)
            log = folder / LOG_FILE
            if going_on and log.exists():  # it was cut off while the results were put under their names
                os.replace(log, _part(folder, LOG_FILE))
            if not going_on:  # before run.json, beside which a journal does not count
                (folder / JOURNAL).unlink(missing_ok=True)
                _part(folder, LOG_FILE).unlink(missing_ok=True)
            for name in NAMES:
                (folder / name).unlink(missing_ok=True)
            for name in TABLES_AND_RECORD:  # another user's could be removed, but not written over
                _part(folder, name).unlink(missing_ok=True)
            self._journal = stack.enter_context(Journal(folder / JOURNAL, header, started, going_on))
            handler = _LogFile(self._open(_part(folder, LOG_FILE), "a" if going_on else "w"))
            stack.callback(_close, handler.stream)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            logging.getLogger("lympho").addHandler(handler)
            stack.callback(logging.getLogger("lympho").removeHandler, handler)
            self._log = handler.stream
            self._told = False
            self._tell_unsynced()
            self._stack = stack.pop_all()

    def __enter__(self) -> "Results":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, line: int, result: PatientResult) -> None:
        """Put a finished patient into the journal.

        Args:
            line: the patient's in the table, unique in the cohort.

        Raises:
            OutputError: the disk is full or gone.
        """
        with _output_errors(self.folder):
            self._places[line] = self._journal.append(result)

    def note(self, downgrade: str) -> None:
        """Put a downgrade into the journal.

        Raises:
            OutputError: the disk is full or gone.
        """
        with _output_errors(self.folder):
            self._journal.note(downgrade)

    def keep(self, line: int, offset: int) -> PatientResult:
        """Take over a patient that an earlier start has finished.

        Raises:
            OutputError: its entry cannot be read back.
        """
        self._places[line] = offset
        with _output_errors(self.folder):
            return self._journal.result(offset)

    def finish(self, record: dict[str, Any], patients: Sequence[Patient], writers: Sequence[Writer]) -> None:
        """Write all files and put them under their names, run.json last: where it stands, the run ended.

        Args:
            record: for run.json, which also says whether the file system could sync.
            patients: all of them, in the table's order.
            writers: of predictions.csv and images.csv.

        Raises:
            OutputError: the disk is full or gone; the journal stays.
        """
        folder = self.folder
        with _output_errors(folder), self._removing_results():
            self._lock.check()
            with contextlib.ExitStack() as stack:
                files = [(writer, stack.enter_context(self._open(_part(folder, writer.name)))) for writer in writers]
                for writer, file in files:
                    file.write(writer.head())
                for patient in patients:
                    result = self._journal.result(self._places[patient.line])
                    if result.patient_id != patient.patient_id:
                        raise RuntimeError(f"{patient.patient_id}: another patient's result stands in its place")
                    for writer, file in files:
                        file.write(writer.rows(result))
                self._unsynced |= _sync(*(file for _, file in files), self._log)
            note = self._tell_unsynced()
            record = {**record, "synced": not note, "sync_note": note}
            with self._open(_part(folder, RECORD)) as file:
                file.write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
                _sync(file)
            for name in (PREDICTIONS, IMAGES, LOG_FILE, RECORD):
                os.replace(_part(folder, name), folder / name)
            _sync_folder(folder)
        # Not above: a signal between its removal and the end of that block would take the results away as well.
        with contextlib.suppress(OSError):  # beside run.json it means nothing, the next run begins it anew
            (folder / JOURNAL).unlink()

    def _tell_unsynced(self) -> str:
        """Say what cannot be synced, in run.log once, at the start or when it is found out. Returns the sentence."""
        note = sync_note({*self._unsynced, self._journal.unsynced})
        if note and not self._told:
            LOG.warning("%s", note)
            self._told = True
        return note

    @contextlib.contextmanager
    def _removing_results(self) -> Iterator[None]:
        """Leave no result if what is inside fails; the log belongs to the journal and stays with it."""
        try:
            yield
        except BaseException:
            if not self._lock.holds():
                raise
            with contextlib.suppress(OSError):
                (self.folder / RECORD).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                if (self.folder / LOG_FILE).exists():
                    os.replace(self.folder / LOG_FILE, _part(self.folder, LOG_FILE))
            for name in NAMES:
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink(missing_ok=True)
            raise

    def _remove_parts(self) -> None:
        if not self._lock.holds():  # someone removed the folder or the lock: these may be another run's
            return
        for name in TABLES_AND_RECORD:
            with contextlib.suppress(OSError):
                _part(self.folder, name).unlink(missing_ok=True)

    def _open(self, path: Path, mode: str = "w") -> IO[str]:
        def opener(name: str, flags: int) -> int:
            return os.open(name, flags, MODE)

        # File names need not be UTF-8; one that is not must not cost the others their results.
        return open(path, mode, encoding="utf-8", errors="backslashreplace", newline="", opener=opener)


def _part(folder: Path, name: str) -> Path:
    return folder / PARTS[name]


def _close(file: IO[str]) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide what ended the run
        file.close()


def _sync(*files: IO[str]) -> set[str]:
    unsynced = set()
    for file in files:
        file.flush()
        unsynced.add(sync(file.fileno()))
    return unsynced


def _sync_folder(folder: Path) -> None:
    """So that the new names are on the disk before the journal is not. Whether that can be, the start found out."""
    sync(folder)


@contextlib.contextmanager
def _found_good(folder: Path, going_on: Stored | None, *, leave: bool = False) -> Iterator[tuple[Lock, set[str]]]:
    """Make the folder, hold it, and try all that a run will do there, before anything in it is removed.

    Args:
        going_on: as for `Results`.
        leave: leave the folder as it was, or none where there was none.

    Yields:
        The lock, and what the file system cannot sync.

    Raises:
        HeldError, OutputError, OSError: as `Results` says; folders that were made are gone again.
    """
    with contextlib.ExitStack() as undo:
        # The innermost folder first, as they have to be removed again.
        undo.callback(_remove_empty, [path for path in (folder, *folder.parents) if not os.path.lexists(path)])
        folder.mkdir(parents=True, exist_ok=True)
        check_not_append_only(folder)
        with held(folder, leave=leave) as lock:
            for name in put_back(folder, MOVED):
                LOG.warning("%s: is back; a start that was killed had set it aside", folder / name)
            if going_on and unfinished(folder) != going_on:
                raise HeldError(f"{folder}: another run was at work there just now. Start this one again")
            unsynced = probe(folder)
            if going_on:
                check_writing(folder / JOURNAL)  # never set aside: what is finished hangs on it
                check_writing(_part(folder, LOG_FILE))
            check_removable(folder, [name for name in MOVED if not (going_on and name == JOURNAL)])
            if not leave:
                undo.pop_all()
            yield lock, unsynced


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _standing(path: Path) -> Path:
    """Where a file is now: a start that was killed may have set it aside."""
    hidden = aside(path)
    return hidden if not exists(path) and exists(hidden) else path


@contextlib.contextmanager
def _output_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: cannot be written ({error.strerror})") from error
