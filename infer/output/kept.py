"""The results that a finished run keeps in OUT, so that pages can be written from them later: `.results`.

A journal without its history: the header, then one record per patient with the line in the table, in the table's order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import msgspec

from infer.errors import OutputError, UsageError
from infer.output.journal import FORMAT, Header, line_of, record_of
from infer.scoring.result import PatientResult

KEPT = ".results"


class KeptWriter:
    """Writes the kept results, patient by patient in the table's order."""

    name = KEPT

    def __init__(self, header: Header, run: str, lines: Iterable[int]) -> None:
        """Write for patients in these lines of the table, which come in this order.

        Args:
            run: ID of the run, by which they are known to belong to the run.json beside them.
        """
        self._first, self._lines = {**asdict(header), "run": run}, iter(lines)

    def head(self) -> str:
        """The header's line."""
        return line_of(self._first).decode("ascii")

    def rows(self, result: PatientResult) -> str:
        """The patient's record, with the line in the table, by which shards are merged."""
        return line_of({"line": next(self._lines), **msgspec.to_builtins(result)}).decode("ascii")


def read_header(path: Path) -> Header:
    """What the kept results depend on.

    Raises:
        UsageError: there are none, or another version of the program wrote them.
        OSError: they cannot be read.
    """
    try:
        with path.open("rb") as file:
            first = record_of(file.readline())
    except FileNotFoundError:
        first = None
    if first is None or first.get("format") != FORMAT:
        raise UsageError(
            f"{path}: is missing or of another version of this program. Score the patients again, or use the version "
            "that scored them"
        )
    try:
        return msgspec.convert(first, Header)
    except msgspec.ValidationError as error:
        raise _damaged(path) from error


def read_results(path: Path, patients: int) -> Iterator[PatientResult]:
    """The kept results, one at a time, in the table's order. See `read_rows`."""
    return (result for _, result in read_rows(path, patients))


def read_rows(path: Path, patients: int) -> Iterator[tuple[int, PatientResult]]:
    """The kept results, one at a time, in the table's order, each with the patient's line in the table.

    Args:
        patients: how many there must be.

    Raises, during iteration:
        OutputError: a record is missing or damaged.
        OSError: they cannot be read.
    """
    found = 0
    with path.open("rb") as file:
        file.readline()
        for line in file:
            record = record_of(line)
            if record is None:
                raise _damaged(path)
            found += 1
            yield int(record["line"]), msgspec.convert(record, PatientResult)
    if found != patients:
        raise _damaged(path)


def _damaged(path: Path) -> OutputError:
    return OutputError(f"{path}: is damaged. Score the patients again")
