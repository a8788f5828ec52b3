"""The journal of a run: every finished patient, safe on the disk, so that a run that was cut off can go on.

A record a line: CRC-32, a blank, JSON. The first says what the results hang on; then come starts, downgrades and
patients. What follows a line that was cut short or whose sum is wrong does not count and is cut away.
"""

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from infer.machine.disk import sync
from infer.output.lock import MODE
from infer.scoring.result import PatientResult

JOURNAL = ".journal"
FORMAT = 3  # raised whenever an older journal would be misread
SYNC_SECONDS = 1.0  # a killed process loses nothing, a machine that loses its power this much


@dataclass(frozen=True)
class Identity:
    """What a patient's result hangs on beside the patient: where all of it agrees, a run goes on."""

    code: str  # version, and a digest of the program
    libraries: str  # that decode and compute beside the networks
    bundle: str  # id
    operating_point: str
    reference_date: str | None  # as asked for
    date_format: str | None
    numerics: str  # SHA-256 of what the self-test's pictures gave: processor, provider and library round alike
    sample_date_format: str | None = None
    sex_codes: str | None = None


@dataclass(frozen=True)
class Header:
    """The first line."""

    format: int
    identity: Identity
    date: str  # at which ages are taken, pinned at the first start


@dataclass(frozen=True)
class Place:
    """Where in the file a patient's result stands, and of which state of the patient it is."""

    offset: int
    fingerprint: str
    status: str


@dataclass(frozen=True)
class Stored:
    """What an earlier run left."""

    header: Header
    starts: tuple[str, ...]
    downgrades: tuple[str, ...]  # of those starts
    places: dict[str, Place]  # patient -> its last result
    end: int  # bytes that count


def read_journal(path: Path) -> Stored | None:
    """What an earlier run left here, or None if that is nothing this program can use.

    Raises:
        OSError: it is there and cannot be read.
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
            header = msgspec.convert(first, Header)
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
    return Stored(header, tuple(starts), tuple(downgrades), places, end)


class Journal:
    """The journal of the run under way. Appends are in the kernel's hands when they return."""

    def __init__(self, path: Path, header: Header, started: str, stored: Stored | None) -> None:
        """Begin a journal, or go on with a stored one.

        Raises:
            OSError: it cannot be written.
        """
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if stored else os.O_TRUNC)
        self._file = os.fdopen(os.open(path, flags, MODE), "r+b", buffering=0)
        self._end = stored.end if stored else 0
        self._synced = 0.0
        self.unsynced = ""  # what `sync` says of a file system that cannot
        try:
            self._file.truncate(self._end)
            if stored is None:
                self._append(asdict(header))
            self._append({"started": started})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # a full disk must not hide what ended the run
            sync(self._file.fileno())
        with contextlib.suppress(OSError):
            self._file.close()

    def append(self, result: PatientResult) -> int:
        """Write down a finished patient and return where.

        Raises:
            OSError: the disk is full or gone, or someone took the file away; what was whole before stays whole.
        """
        return self._append(msgspec.to_builtins(result))

    def note(self, downgrade: str) -> None:
        """Write down that less is used than was asked for.

        Raises:
            OSError: as `append`.
        """
        self._append({"downgrade": downgrade})

    def result(self, offset: int) -> PatientResult:
        """Read a finished patient back.

        Raises:
            OSError: the disk gives back something else than was written, or nothing.
        """
        self._file.seek(offset)
        line = b""
        while not line.endswith(b"\n"):
            part = self._file.read(1 << 16)
            if not part:
                break
            newline = part.find(b"\n")
            line += part if newline < 0 else part[: newline + 1]
        record = _record(line)
        if record is None:
            raise OSError(None, "an entry cannot be read back", str(self.path))
        return msgspec.convert(record, PatientResult)

    def _append(self, record: dict[str, Any]) -> int:
        offset = self._end
        # File names need not be UTF-8; JSON's escapes carry whatever they hold.
        text = json.dumps(record).encode("ascii")
        line = memoryview(b"%08x %s\n" % (zlib.crc32(text), text))
        self._file.seek(offset)
        while line:  # cut short by a full disk or a signal, it does not count; whole, it counts even if a signal came
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
            raise FileNotFoundError(None, "was taken away while the run wrote it", str(self.path))


def _whole_lines(file: Any) -> Iterator[tuple[int, int, Any]]:
    """Records with where they begin and end, up to the first line that is not whole."""
    offset = 0
    for line in file:
        record = _record(line)
        if record is None:
            return
        yield offset, offset + len(line), record
        offset += len(line)


def _record(line: bytes) -> Any:
    total, _, text = line[:-1].partition(b" ")
    if not line.endswith(b"\n") or total != b"%08x" % zlib.crc32(text):
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
