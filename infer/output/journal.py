"""The journal of a run: every finished patient, safely on disk, so that an interrupted run can be resumed.

One record per line: CRC-32, a space, JSON. The first has the run's ID and what the results depend on; then come starts,
downgrades and patients. From the first truncated line or wrong checksum on, the rest is ignored and truncated.
"""

import contextlib
import json
import os
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from infer.machine.disk import sync
from infer.machine.locks import MODE
from infer.scoring.result import PatientResult

JOURNAL = ".journal"
FORMAT = 8  # raised whenever an older journal would be misread
SYNC_SECONDS = 1.0  # a killed process loses nothing; a power failure loses this much


@dataclass(frozen=True)
class Identity:
    """What a result depends on apart from the patient: a run is resumed only if all of it is equal."""

    code: str  # version, and a digest of the program
    libraries: str  # versions of the libraries that decode and compute
    bundle: str  # ID
    operating_point: str
    reference_date: str | None  # as given on the command line
    date_format: str | None
    numerics: str  # SHA-256 of the self-test's outputs; equal if CPU, provider and library round identically
    sample_date_format: str | None = None
    sex_codes: str | None = None
    pixel_size: float | None = None  # micrometres, as given on the command line
    ood: str = "refer"
    prevalence: float | None = None  # as given on the command line
    shard: str | None = None  # as given on the command line


@dataclass(frozen=True)
class Header:
    """The first record."""

    format: int
    identity: Identity
    date: str  # at which ages are taken, fixed at the first start


@dataclass(frozen=True)
class Place:
    """Where in the file a patient's result is, and the state of the patient that it belongs to."""

    offset: int
    fingerprint: str
    status: str


@dataclass(frozen=True)
class Stored:
    """The content of an unfinished run's journal."""

    header: Header
    run: str  # ID of the run, which run.json will have too
    starts: tuple[str, ...]
    downgrades: tuple[str, ...]  # of those starts
    places: dict[str, Place]  # patient -> last result
    end: int  # number of valid bytes


def read_journal(path: Path) -> Stored | None:
    """Read an earlier run's journal; None if there is none that this program can use.

    Raises:
        OSError: it exists but cannot be read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        lines = _whole_lines(file)
        try:
            _, end, first = next(lines)
            if first["format"] != FORMAT:
                return None
            header, run = msgspec.convert(first, Header), str(first["run"])
        except (StopIteration, KeyError, TypeError, msgspec.ValidationError):
            return None
        starts: list[str] = []
        downgrades: list[str] = []
        places: dict[str, Place] = {}
        for offset, after, record in lines:
            if "started" in record:
                starts.append(record["started"])
            elif "downgrade" in record:
                downgrades.append(record["downgrade"])
            else:
                places[record["patient_id"]] = Place(offset, record["fingerprint"], record["status"])
            end = after
    return Stored(header, run, tuple(starts), tuple(downgrades), places, end)


def run_of(path: Path) -> str | None:
    """The ID of a journal's run; None if the journal is missing, damaged or of an older program.

    Raises:
        OSError: it exists but cannot be read.
    """
    try:
        with path.open("rb") as file:
            first = record_of(file.readline())
    except FileNotFoundError:
        return None
    return first.get("run") if first else None


class Journal:
    """The journal of the current run. When an append returns, the kernel has the data."""

    def __init__(self, path: Path, header: Header, started: str, stored: Stored | None) -> None:
        """Begin a journal, or resume a stored one.

        Raises:
            OSError: it cannot be written.
        """
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if stored else os.O_TRUNC)
        self._file = os.fdopen(os.open(path, flags, MODE), "r+b", buffering=0)
        self._end = stored.end if stored else 0
        self.run = stored.run if stored else uuid.uuid4().hex
        self._synced = 0.0
        self.unsynced = ""  # the text from `sync` if the file system cannot sync
        try:
            self._file.truncate(self._end)
            if stored is None:
                self._append({**asdict(header), "run": self.run})
            self._append({"started": started})
            sync(path.parent)  # else the file could be on the disk, and its name not
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # a full disk must not hide the original error
            sync(self._file.fileno())
        with contextlib.suppress(OSError):
            self._file.close()

    def append(self, result: PatientResult) -> int:
        """Append a finished patient and return its offset.

        Raises:
            OSError: the disk is full or not available, or the file was removed; earlier records stay intact.
        """
        return self._append(msgspec.to_builtins(result))

    def note(self, downgrade: str) -> None:
        """Append a downgrade.

        Raises:
            OSError: as for `append`.
        """
        self._append({"downgrade": downgrade})

    def result(self, offset: int) -> PatientResult:
        """Read a finished patient back.

        Raises:
            OSError: the disk returns other data than was written, or none.
        """
        self._file.seek(offset)
        line = b""
        while not line.endswith(b"\n"):
            part = self._file.read(1 << 16)
            if not part:
                break
            newline = part.find(b"\n")
            line += part if newline < 0 else part[: newline + 1]
        record = record_of(line)
        if record is None:
            raise OSError(None, "an entry cannot be read back", str(self.path))
        return msgspec.convert(record, PatientResult)

    def _append(self, record: dict[str, Any]) -> int:
        offset = self._end
        line = memoryview(line_of(record))
        self._file.seek(offset)
        while (
            line
        ):  # a line truncated by a full disk or a signal is invalid; a complete one is valid even after a signal
            line = line[self._file.write(line) :]
        self._end = self._file.tell()
        self._sync()
        return offset

    def _sync(self) -> None:
        now = time.monotonic()
        if now - self._synced < SYNC_SECONDS:
            return
        self._synced = now
        self.unsynced = sync(self._file.fileno()) or self.unsynced
        if not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
            raise FileNotFoundError(None, "was removed or replaced during the run", str(self.path))


def _whole_lines(file: Any) -> Iterator[tuple[int, int, Any]]:
    """Records with their start and end offsets, up to the first invalid line."""
    offset = 0
    for line in file:
        record = record_of(line)
        if record is None:
            return
        yield offset, offset + len(line), record
        offset += len(line)


def line_of(record: dict[str, Any]) -> bytes:
    """A record as a line: CRC-32, a space, JSON, a line end; ASCII."""
    text = json.dumps(record).encode("ascii")  # file names need not be UTF-8; JSON's escapes carry whatever they hold
    return b"%08x %s\n" % (zlib.crc32(text), text)


def record_of(line: bytes) -> Any:
    """The record of a line; None if the line is truncated or damaged."""
    total, _, text = line[:-1].partition(b" ")
    if not line.endswith(b"\n") or total != b"%08x" % zlib.crc32(text):
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
