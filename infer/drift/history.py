"""The history file: a line of JSON for each run, for the test over nights. No line holds a patient's value or ID.

A line is appended whole or not at all, and is on the disk when `append_history` returns. Runs that share the file take
turns at a lock on it. Nothing is repaired: a line that cannot be read stops the next run before it scores anything.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from infer.drift.locked import locked
from infer.drift.measures import Sums
from infer.errors import OutputError, UsageError
from infer.machine.disk import sync

FORMAT = 1  # raised whenever an older line would be misread
_WIDEST = 5.0  # no normal score is that far from 0


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="lympho", tag="history"):
    """A run's line."""

    format: int
    when: str  # ISO date and time at which the run started
    bundle: str  # ID
    run: str  # key that a resumed run has, too, and that no other run of this bundle has
    patients: int  # measured, and in no earlier line
    measures: Sums  # those of five patients or more
    seen: tuple[str, ...] = ()  # digests of these patients' pictures: so that nobody counts twice
    evidence: float = 0.0  # over all nights so far, from 20 on an alarm
    alarm: bool = False  # whether any night so far raised one

    def with_evidence(self, evidence: float, *, alarm: bool) -> "Line":
        """This line with what all nights say."""
        return msgspec.structs.replace(self, evidence=evidence, alarm=alarm)


def tonights_line(when: str, bundle: str, run: str, patients: int, sums: Sums, seen: tuple[str, ...] = ()) -> Line:
    """A run's line, its sums rounded to what they are written with."""
    rounded = {key: (round(total, 4), number) for key, (total, number) in sums.items()}
    return Line(FORMAT, when, bundle, run, patients, rounded, seen)


def check_place(
    path: Path, outside: Iterable[tuple[str, Path]], others: Iterable[Path] = (), option: str = "--history"
) -> None:
    """Make sure that a file that outlives the run may lie there.

    Args:
        path: the file.
        outside: folders, each with what it is and why no file may lie there.
        others: files that the run writes or removes.
        option: by which the file is given.

    Raises:
        UsageError: it lies in one of the folders, or is one of the others.
    """
    real = Path(os.path.realpath(path))
    for what, folder in outside:
        if real.is_relative_to(os.path.realpath(folder)):
            raise UsageError(f"{option} {path}: lies inside {what}. Choose another file")
    if real in {Path(os.path.realpath(other)) for other in others}:
        raise UsageError(f"{option} {path}: is a file that every run replaces. Choose another file")


def read_history(path: Path, bundle: str) -> tuple[Line, ...]:
    """The lines of a bundle's runs, the first to be appended first. A run that has two counts once.

    Raises:
        HeldError: another run holds the file.
        OutputError: it cannot be opened for reading and writing, or it does not exist and could not be created.
        UsageError: a line is damaged, or is no line of a history. The message names file and line.
    """
    try:
        with locked(path, os.O_RDWR) as descriptor:
            return _parse(path, _content(descriptor), bundle)
    except FileNotFoundError:
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise OutputError(f"{path}: cannot be created: its folder does not exist or cannot be written") from None
        return ()
    except OSError as error:
        raise OutputError(f"{path}: cannot be read and written ({error.strerror})") from error


def append_history(path: Path, line: Line) -> bool:
    """Append a run's line, and create the file if there is none.

    Returns:
        Whether it was appended; a run that has a line does not get a second one.

    Raises:
        HeldError, UsageError: as `read_history`.
        OutputError: it cannot be written; the file is as it was.
    """
    try:
        with locked(path, os.O_RDWR | os.O_CREAT) as descriptor:
            before = _content(descriptor)
            if any(one.run == line.run for one in _parse(path, before, line.bundle)):
                return False
            try:
                _write(descriptor, msgspec.json.encode(line) + b"\n")
                sync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, len(before))
                raise
            sync(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: the run's line cannot be written ({error.strerror})") from error
    return True


def _write(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) != len(data):  # one call: a killed run leaves all or nothing
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _content(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


def _parse(path: Path, content: bytes, bundle: str) -> tuple[Line, ...]:
    lines: dict[str, Line] = {}
    for number, text in enumerate(content.splitlines(keepends=True), start=1):
        try:
            line = msgspec.json.decode(text, type=Line)
            sums = line.measures.values()
            if not text.endswith(b"\n"):
                raise ValueError("does not end")
            if line.format != FORMAT:
                raise ValueError(f"has format {line.format}, this program reads {FORMAT}")
            if line.patients < 0 or any(count < 0 or not abs(total) <= _WIDEST * count for total, count in sums):
                raise ValueError("holds numbers that cannot be")
        except ValueError as error:  # msgspec's errors are ValueErrors
            raise UsageError(
                f"{path}, line {number}: is damaged, or is no line of a history ({error}). "
                "Remove this line, or give another --history file"
            ) from error
        if line.bundle == bundle:
            lines.setdefault(line.run, line)
    return tuple(lines.values())
