"""Reads a table of patients into named cells, each row with its line, and the cells that hold numbers into numbers.

Two things are settled once for the whole file, never row by row: the header says whether commas or semicolons part the
cells, and in a table with semicolons, as a French or German spreadsheet writes it, the numbers say whether they have
decimal points or decimal commas. Values never appear in messages; lines and columns do.
"""

import codecs
import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infer.errors import CohortError

REQUIRED = ("ID", "GENDER", "DOB", "LYMPH_COUNT")
OPTIONAL = ("LABEL", "SAMPLE_DATE", "AGE")
NUMBERS = ("LYMPH_COUNT", "AGE")
DELIMITERS = (",", ";")
SEPARATOR_NAMES = {".": "a decimal point", ",": "a decimal comma"}

# Written out because float() also takes "nan", "1_000" and the digits of every script. No two parts of it can match the
# same digits, so that a long cell costs no more than its length.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_LINE_END = re.compile(rb"\r\n?|\n")


@dataclass(frozen=True)
class Row:
    """The cells of one patient that lympho reads, stripped of blanks."""

    line: int  # where it begins; the header is line 1
    cells: dict[str, str]  # by column


@dataclass(frozen=True)
class Table:
    """A table with at least one row; its numbers have decimal points, however the file writes them."""

    columns: tuple[str, ...]  # those that lympho reads
    rows: tuple[Row, ...]


def parse_table(data: bytes, path: Path) -> Table:
    """Split the bytes of a CSV file into cells.

    Args:
        path: the file, for the messages.

    Raises:
        CohortError: it is not UTF-8, ragged, lacks a column, has no row, or writes its numbers in two ways.
    """
    text = _decode(data, path)
    delimiter = _delimiter(text, path)
    records = _records(text, delimiter, path)
    _, header = next(records, (1, []))
    columns = _check_header(header, path)
    rows = []
    for line, cells in records:
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise CohortError(
                f"{path}, line {line}: {len(cells)} cells where the header has {len(header)} columns. Correct the line"
            )
        rows.append(Row(line, {name: cell for name, cell in zip(header, cells, strict=True) if name in columns}))
    if not rows:
        raise CohortError(f"{path}: has no patient")
    return Table(columns, tuple(rows if delimiter == "," else _with_points(rows, path)))


def number(cell: str) -> float | None:
    """The finite number that a cell holds in ASCII digits with a decimal point, or None."""
    if "," in cell or not _NUMBER.fullmatch(cell):
        return None
    value = float(cell)
    return value if math.isfinite(value) else None


def _decode(data: bytes, path: Path) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CohortError(f"{path}, line 1: not UTF-8 but UTF-16 text. Save the table as CSV in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_after(error.object[: error.start])  # of these bytes, not `data`: a byte-order mark was cut off
        raise CohortError(
            f"{path}, line {line}: not UTF-8 text, but Latin-1 or another encoding. Save the table as CSV in UTF-8"
        ) from error
    if (at := data.find(b"\0")) >= 0:
        raise CohortError(
            f"{path}, line {_line_after(data[:at])}: a NUL character: the file is damaged, or UTF-16 without a mark. "
            f"Save the table as CSV in UTF-8"
        )
    return text


def _line_after(data: bytes) -> int:
    """The line in which the byte after these stands; lines end as for the csv module, on any system."""
    return sum(1 for _ in _LINE_END.finditer(data)) + 1


def _delimiter(text: str, path: Path) -> str:
    """What the header is split at to give the most of the required columns; in doubt, the comma."""

    def required(delimiter: str) -> int:
        try:
            _, header = next(_records(text, delimiter, path), (1, []))
        except CohortError:  # a quoted header is broken at the wrong delimiter
            return 0
        return len(set(REQUIRED).intersection(header))

    return max(DELIMITERS, key=required)


def _records(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every record's cells, and the line it begins in: a cell in quotes may hold further lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise CohortError(f"{path}, line {line}: {_what_is_broken(error)}. Correct the line") from error
        if cells is None:
            return
        yield line, [cell.strip() for cell in cells]


def _what_is_broken(error: csv.Error) -> str:
    said = str(error)
    if "field limit" in said:
        return f"a cell of more than {csv.field_size_limit()} characters; is a quote never closed?"
    return "a quote is never closed" if "end of data" in said else said


def _check_header(header: list[str], path: Path) -> tuple[str, ...]:
    """The columns that lympho reads. An unnamed index column and columns it does not know are left alone."""
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        tabs = (
            " (tabs? Save the table as CSV, with commas or semicolons)" if any("\t" in name for name in header) else ""
        )
        raise CohortError(f"{path}: has no column {', '.join(missing)}{tabs}. Line 1 must name the columns")
    columns = tuple(name for name in header if name in REQUIRED + OPTIONAL)
    twice = [name for name, times in Counter(columns).items() if times > 1]
    if twice:
        raise CohortError(f"{path}: has the column {', '.join(twice)} more than once. Keep one")
    return columns


def _with_points(rows: list[Row], path: Path) -> list[Row]:
    """The rows of a table with semicolons, its numbers with decimal points.

    Raises:
        CohortError: a number has a decimal comma and another a decimal point. One of them separates thousands, perhaps.
    """
    written: str | None = None  # how the first number that has a fraction is
    for row in rows:
        for column in (name for name in row.cells if name in NUMBERS):
            separator = _separator(row.cells[column])
            written = written or separator
            if separator and separator != written:
                raise CohortError(
                    f"{path}, line {row.line}, column {column}: {SEPARATOR_NAMES[separator]} where a number before has "
                    f"{SEPARATOR_NAMES[str(written)]}. No number in this table can be trusted: write all in one way"
                )
    return rows if written != "," else [Row(row.line, _pointed(row.cells)) for row in rows]


def _separator(cell: str) -> str | None:
    """The decimal point or comma of a number, None for a whole number and for what is none, such as 1.234,5."""
    return next((sign for sign in ".," if sign in cell), None) if _NUMBER.fullmatch(cell) else None


def _pointed(cells: dict[str, str]) -> dict[str, str]:
    numbers = {name: cells[name].replace(",", ".") for name in NUMBERS if _separator(cells.get(name, ""))}
    return cells | numbers
