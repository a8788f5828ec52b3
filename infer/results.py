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

from infer.cohort import Patient
from infer.errors import HeldError, OutputError
from infer.journal import JOURNAL, Entry, Header, Journal, Stored, read_journal
from infer.lock import MODE, held
from infer.rows import IMAGE_COLUMNS, PREDICTION_COLUMNS, csv_text

PREDICTIONS, IMAGES, RECORD, LOG_FILE = "predictions.csv", "images.csv", "run.json", "run.log"
NAMES = (RECORD, PREDICTIONS, IMAGES, LOG_FILE)  # removed in this order: run.json must not speak for what is gone


def unfinished(folder: Path) -> Stored | None:
    """What a run that was cut off left in a folder, or None: its last run finished, or there was none.

    Raises:
        OutputError: it is there and cannot be read.
    """
    with _output_errors(folder):
        return read_journal(folder / JOURNAL) if unfinished_size(folder) else None


def unfinished_size(folder: Path) -> int:
    """Bytes of the journal of a run that was cut off; 0 if there is none.

    Raises:
        OutputError: the folder cannot be looked into.
    """
    with _output_errors(folder):
        try:
            (folder / RECORD).lstat()
        except FileNotFoundError:
            try:
                return (folder / JOURNAL).stat().st_size
            except FileNotFoundError:
                return 0
        return 0


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
            OutputError: the folder cannot be made or written.
        """
        self.folder = folder
        self._places: dict[int, int] = {}  # line of the patient in the table -> where its entry stands
        with contextlib.ExitStack() as stack, _output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = stack.enter_context(held(folder))
            stack.callback(self._remove_parts)
            if going_on and unfinished(folder) != going_on:
                raise HeldError(f"{folder}: another run was at work there just now. Start this one again")
            log = folder / LOG_FILE
            if going_on and log.exists():  # it was cut off while the results were put under their names
                os.replace(log, _part(folder, LOG_FILE))
            if not going_on:  # before run.json, beside which a journal does not count
                (folder / JOURNAL).unlink(missing_ok=True)
            for name in NAMES:
                (folder / name).unlink(missing_ok=True)
            self._journal = stack.enter_context(Journal(folder / JOURNAL, header, started, going_on))
            handler = _LogFile(self._open(_part(folder, LOG_FILE), "a" if going_on else "w"))
            stack.callback(_close, handler.stream)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            logging.getLogger("lympho").addHandler(handler)
            stack.callback(logging.getLogger("lympho").removeHandler, handler)
            self._log = handler.stream
            self._stack = stack.pop_all()

    def __enter__(self) -> "Results":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, line: int, entry: Entry) -> None:
        """Put a finished patient into the journal.

        Args:
            line: the patient's in the table, unique in the cohort.

        Raises:
            OutputError: the disk is full or gone.
        """
        with _output_errors(self.folder):
            self._places[line] = self._journal.append(entry)

    def note(self, downgrade: str) -> None:
        """Put a downgrade into the journal.

        Raises:
            OutputError: the disk is full or gone.
        """
        with _output_errors(self.folder):
            self._journal.note(downgrade)

    def keep(self, line: int, offset: int) -> Entry:
        """Take over a patient that an earlier start has finished.

        Raises:
            OutputError: its entry cannot be read back.
        """
        self._places[line] = offset
        with _output_errors(self.folder):
            return self._journal.entry(offset)

    def finish(self, record: dict[str, Any], patients: Sequence[Patient]) -> None:
        """Write all files and put them under their names, run.json last: where it stands, the run ended.

        Args:
            patients: all of them, in the table's order.

        Raises:
            OutputError: the disk is full or gone; the journal stays.
        """
        folder = self.folder
        with _output_errors(folder), self._removing_results():
            self._lock.check()
            with self._open(_part(folder, PREDICTIONS)) as predictions, self._open(_part(folder, IMAGES)) as images:
                predictions.write(csv_text([PREDICTION_COLUMNS]))
                images.write(csv_text([IMAGE_COLUMNS]))
                for patient in patients:
                    entry = self._journal.entry(self._places[patient.line])
                    if entry.patient_id != patient.patient_id:
                        raise RuntimeError(f"{patient.patient_id}: another patient's result stands in its place")
                    predictions.write(entry.prediction)
                    images.write(entry.images)
                _sync(predictions, images, self._log)
            with self._open(_part(folder, RECORD)) as file:
                file.write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
                _sync(file)
            for name in (PREDICTIONS, IMAGES, LOG_FILE, RECORD):
                os.replace(_part(folder, name), folder / name)
            _sync_folder(folder)
        # Not above: a signal between its removal and the end of that block would take the results away as well.
        with contextlib.suppress(OSError):  # beside run.json it means nothing, the next run begins it anew
            (folder / JOURNAL).unlink()

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
        for name in (PREDICTIONS, IMAGES, RECORD):
            with contextlib.suppress(OSError):
                _part(self.folder, name).unlink(missing_ok=True)

    def _open(self, path: Path, mode: str = "w") -> IO[str]:
        def opener(name: str, flags: int) -> int:
            return os.open(name, flags, MODE)

        # File names need not be UTF-8; one that is not must not cost the others their results.
        return open(path, mode, encoding="utf-8", errors="backslashreplace", newline="", opener=opener)


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.part"


def _close(file: IO[str]) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide what ended the run
        file.close()


def _sync(*files: IO[str]) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """So that the new names are on the disk before the journal is not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _output_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: cannot be written ({error.strerror})") from error
