"""The output folder of one run: predictions.csv, images.csv, run.json and run.log, which appear only when complete.

The patients' results are kept beside them, from which pages can be written. An earlier run's files stay until then.

Until then, finished patients are in the journal. An interrupted run is resumed from it, and at the end the two tables
are written from it, in the table's order.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from infer.machine.disk import sync, sync_note
from infer.machine.locks import MODE
from infer.output.csv import Writer
from infer.output.exchange import broke_off, exchange, remove_earlier, settle
from infer.output.folder import finished_run, found_good, output_errors
from infer.output.journal import JOURNAL, Header, Journal, Stored
from infer.output.kept import KeptWriter
from infer.output.names import LOG_FILE, NAMES, RECORD, TABLES_AND_RECORD, part_of
from infer.output.pages import remove_pages
from infer.output.watch import DRIFT
from infer.scoring.result import PatientResult

LOG = logging.getLogger("lympho")


class Row(Protocol):
    """What the tables need to know of a patient beside the result."""

    @property
    def patient_id(self) -> str: ...

    @property
    def line(self) -> int: ...


class _LogFile(logging.StreamHandler[IO[str]]):
    """run.log. A line that cannot be written is dropped: if the disk is full, the journal notices and ends the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


class Results:
    """The locked output folder. Closing it without `finish` leaves the journal, and an earlier run's files."""

    def __init__(self, folder: Path, header: Header, started: str, resumed: Stored | None) -> None:
        """Lock the folder and begin the journal.

        Args:
            resumed: the result of `unfinished`, if this run resumes it.

        Raises:
            HeldError: another run has locked the folder.
            OutputError: the folder cannot be created or written, or an earlier run's file could not be replaced.
        """
        self.folder = folder
        self.finished = False  # whether run.json has its name: then the results are there, whatever fails afterwards
        self._header = header
        self._places: dict[int, int] = {}  # line of the patient in the table -> offset of its entry in the journal
        with contextlib.ExitStack() as stack, output_errors(folder):
            self._lock, self._unsynced = stack.enter_context(found_good(folder, resumed))
            stack.callback(self._remove_parts)
            if not resumed:
                (folder / JOURNAL).unlink(missing_ok=True)
                part_of(folder, LOG_FILE).unlink(missing_ok=True)
            if not (folder / RECORD).exists():
                self._remove_unfinished(resumed is not None)
            for name in TABLES_AND_RECORD:  # another user's file can be removed, but not overwritten
                part_of(folder, name).unlink(missing_ok=True)
            self._journal = stack.enter_context(Journal(folder / JOURNAL, header, started, resumed))
            handler = _LogFile(self._open(part_of(folder, LOG_FILE), "a" if resumed else "w"))
            stack.callback(_close, handler.stream)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            logging.getLogger("lympho").addHandler(handler)
            stack.callback(logging.getLogger("lympho").removeHandler, handler)
            self._log = handler.stream
            self._logged = False
            self._log_unsynced()
            self._stack = stack.pop_all()

    def __enter__(self) -> "Results":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def kept(self) -> int:
        """Finished patients in the journal, of this start and earlier ones."""
        return len(self._places)

    def write(self, line: int, result: PatientResult) -> None:
        """Append a finished patient to the journal.

        Args:
            line: the patient's line in the table, unique in the cohort.

        Raises:
            OutputError: the disk is full or not available.
        """
        with output_errors(self.folder):
            self._places[line] = self._journal.append(result)

    def note(self, downgrade: str) -> None:
        """Append a downgrade to the journal.

        Raises:
            OutputError: the disk is full or not available.
        """
        with output_errors(self.folder):
            self._journal.note(downgrade)

    def keep(self, line: int, offset: int) -> PatientResult:
        """Keep a patient that an earlier start has finished.

        Raises:
            OutputError: its entry cannot be read back.
        """
        self._places[line] = offset
        with output_errors(self.folder):
            return self._journal.result(offset)

    def finish(
        self, record: dict[str, Any], drift: dict[str, Any], patients: Sequence[Row], writers: Sequence[Writer]
    ) -> None:
        """Write all files, and let them take the place of an earlier run's: all, or none.

        Args:
            record: for run.json, to which this adds the run's ID and whether the file system could sync.
            drift: for drift.json.
            patients: all of them, in the table's order.
            writers: of predictions.csv and images.csv.

        Raises:
            OutputError: the disk is full or not available, or an earlier file cannot be replaced; the journal stays,
                and so do the earlier files.
        """
        folder = self.folder
        writers = (*writers, KeptWriter(self._header, self._journal.run, [patient.line for patient in patients]))
        with output_errors(folder):
            self._lock.check()
            with contextlib.ExitStack() as stack:
                files = [(writer, stack.enter_context(self._open(part_of(folder, writer.name)))) for writer in writers]
                for writer, file in files:
                    file.write(writer.head())
                for patient in patients:
                    result = self._journal.result(self._places[patient.line])
                    if result.patient_id != patient.patient_id:
                        raise RuntimeError(
                            f"{patient.patient_id}: the journal has another patient's result in its place"
                        )
                    for writer, file in files:
                        file.write(writer.rows(result))
                self._unsynced |= _sync(*(file for _, file in files), self._log)
            note = self._log_unsynced()
            record = {"run": self._journal.run, **record, "synced": not note, "sync_note": note}
            for name, content in ((DRIFT, drift), (RECORD, record)):
                with self._open(part_of(folder, name)) as file:
                    file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
                    _sync(file)
            with self._settling():
                exchange(folder)
            self.finished = True
        # Outside the block above: a signal from here on must not take the results away again.
        with contextlib.suppress(OSError):  # the journal of a finished run is ignored; the next run replaces both
            (folder / JOURNAL).unlink()
            remove_earlier(folder)

    def _log_unsynced(self) -> str:
        """Log once what cannot be synced, at the start or when it is detected. Returns the sentence."""
        note = sync_note({*self._unsynced, self._journal.unsynced})
        if note and not self._logged:
            LOG.warning("%s", note)
            self._logged = True
        return note

    @contextlib.contextmanager
    def _settling(self) -> Iterator[None]:
        """Give an earlier run's files their names back if the block fails before run.json has its own."""
        try:
            yield
        except BaseException:
            if self._lock.holds():  # otherwise these files may be another run's
                settle(self.folder)
                self.finished = finished_run(self.folder) == self._journal.run
            raise

    def _remove_unfinished(self, resumed: bool) -> None:
        """Remove result files beside no run.json: a first run was killed while they took their names."""
        log = self.folder / LOG_FILE
        if resumed and log.exists():
            os.replace(log, part_of(self.folder, LOG_FILE))
        remove_pages(self.folder)  # before the tables that they are about
        for name in NAMES:
            (self.folder / name).unlink(missing_ok=True)

    def _remove_parts(self) -> None:
        if not self._lock.holds():  # the folder or the lock was removed: these files may be another run's
            return
        if _broke_off(self.folder):  # the next start settles it, and tells old from new by these
            return
        for name in TABLES_AND_RECORD:
            with contextlib.suppress(OSError):
                part_of(self.folder, name).unlink(missing_ok=True)

    def _open(self, path: Path, mode: str = "w") -> IO[str]:
        def opener(name: str, flags: int) -> int:
            return os.open(name, flags, MODE)

        # File names need not be UTF-8; a name that is not must not cost the other patients their results.
        return open(path, mode, encoding="utf-8", errors="backslashreplace", newline="", opener=opener)


def _broke_off(folder: Path) -> bool:
    try:
        return broke_off(folder)
    except OSError:  # it cannot be told
        return True


def _close(file: IO[str]) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide the original error
        file.close()


def _sync(*files: IO[str]) -> set[str]:
    unsynced = set()
    for file in files:
        file.flush()
        unsynced.add(sync(file.fileno()))
    return unsynced
