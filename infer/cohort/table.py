"""Parses a table of patients into named cells, each row with its line number, and cells with numbers into numbers.

Two things are decided once for the whole file, never row by row. The header, or a line `sep=;` before it, decides
whether cells are separated by commas or semicolons. In a table with semicolons, as French or German spreadsheets write,
the numbers decide whether they have decimal points or commas. Values never appear in messages; lines and columns do.

Spreadsheets omit empty cells at the end of a line, or write too many. The number of cells then does not prove that each
is in its own column, so such a table is accepted only if a cell in the wrong column would be noticed in another way.
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
CENTRE = "CENTRE"  # the hospital; read for training alone
NUMBERS = ("LYMPH_COUNT", "AGE")
DELIMITERS = (",", ";")
SEPARATOR_NAMES = {".": "a decimal point", ",": "a decimal comma"}
WITH_DIGITS = ("DOB", "LYMPH_COUNT", "LABEL", "SAMPLE_DATE", "AGE")  # values of these columns contain a digit
BYTE_ORDER_MARK = "\ufeff"
END_OF_FILE = "\x1a"  # Ctrl-Z, which DOS programs write at the end of a text file

# Spelled out because float() also accepts "nan", "1_000" and the digits of every script. No two parts can match the
# same digits, so that matching takes linear time.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_LINE_END = re.compile(rb"\r\n?|\n")
_FIRST_LINE = re.compile(r"([^\r\n]*)(?:\r\n?|\n|$)")

Cells = tuple[int, list[str]]  # the line where a record begins, and its cells


@dataclass(frozen=True)
class Row:
    """The cells of one patient that lympho uses, stripped of blanks."""

    line: int  # where the row begins; the file's first line is 1
    cells: dict[str, str]  # by column


@dataclass(frozen=True)
class Table:
    """A table with at least one row; its numbers have decimal points, whatever the file uses."""

    columns: tuple[str, ...]  # those that lympho uses
    rows: tuple[Row, ...]
    delimiter: str  # of the file: a comma or a semicolon


def parse_table(data: bytes, path: Path, also: tuple[str, ...] = ()) -> Table:
    """Split the bytes of a CSV file into cells.

    Args:
        path: the file, for the messages.
        also: more optional columns to read; others are ignored.

    Raises:
        CohortError: it is not UTF-8, lacks a column, has no row, has separators other than commas or semicolons, has a
            line whose cells may be in the wrong columns, or mixes decimal points and decimal commas.
    """
    text, named, first = _without_separator_line(_decode(data, path), path)
    delimiter = named or _delimiter(text, path)
    records = _records(text, delimiter, path, first)
    line, header = next(records, (first, []))
    columns = _check_header(header, path, line, also)
    lines = _with_cells(records, header, columns, path)
    if not lines:
        raise CohortError(f"{path}: has no patient. Add a row per patient")
    if any(len(cells) != len(header) for _, cells in lines):
        if delimiter == ",":
            _check_split_numbers(lines, header, path)
        _check_missing_cells(lines, header, columns, path)
    rows = [
        Row(line, {name: cell for name, cell in zip(header, cells, strict=False) if name in columns})
        for line, cells in lines
    ]
    return Table(columns, tuple(rows if delimiter == "," else _with_points(rows, path)), delimiter)


def number(cell: str) -> float | None:
    """The cell's finite number, in ASCII digits with a decimal point, or None."""
    if "," in cell or not _NUMBER.fullmatch(cell):
        return None
    value = float(cell)
    return value if math.isfinite(value) else None


def _decode(data: bytes, path: Path) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CohortError(f"{path}, line 1: not UTF-8 but UTF-16 text. Save the table as CSV in UTF-8")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = _line_after(data[: error.start])
        raise CohortError(
            f"{path}, line {line}: not UTF-8 text, but Latin-1 or another encoding. Save the table as CSV in UTF-8"
        ) from error
    if (at := data.find(b"\0")) >= 0:
        raise CohortError(
            f"{path}, line {_line_after(data[:at])}: a NUL character: the file is damaged, or UTF-16 without a "
            f"byte-order mark. Save the table as CSV in UTF-8"
        )
    text = text.lstrip(BYTE_ORDER_MARK)  # a program that does not know the mark adds a second one
    ended = text.rstrip("\r\n")
    return ended.rstrip(END_OF_FILE) if ended.endswith(END_OF_FILE) else text


def _line_after(data: bytes) -> int:
    """The line number of the byte after these; lines end as for the csv module, on any system."""
    return sum(1 for _ in _LINE_END.finditer(data)) + 1


def _without_separator_line(text: str, path: Path) -> tuple[str, str | None, int]:
    """The text from the header on, the delimiter named by a first line such as `sep=;`, and the header's line.

    Excel obeys such a line and does not display it.

    Raises:
        CohortError: it names a delimiter other than a comma or a semicolon.
    """
    first = _FIRST_LINE.match(text)
    said = first[1].strip(" ") if first else ""
    if len(said) > 1 and said[0] == said[-1] == '"':
        said = said[1:-1]
    if first is None or said[:4].lower() != "sep=":
        return text, None, 1
    separator = said[4:]
    for delimiter in DELIMITERS:
        # Repeated if a spreadsheet treated the line as a row and padded it to as many cells as the others.
        if separator and not separator.strip(delimiter):
            return text[first.end() :].lstrip(BYTE_ORDER_MARK), delimiter, 2
    shown = f"'{separator}'" if len(separator) <= 4 and separator.isprintable() else "something else"
    what = {"": "nothing", "\t": "a tab"}.get(separator, shown)
    raise CohortError(
        f"{path}, line 1: names {what} as the separator (sep=). Save the table as CSV, with commas or semicolons"
    )


def _delimiter(text: str, path: Path) -> str:
    """The delimiter at which the header yields most of the required columns; if equal, the comma."""

    def required(delimiter: str) -> int:
        try:
            _, header = next(_records(text, delimiter, path, 1), (1, []))
        except CohortError:  # with the wrong delimiter, a quoted header is malformed
            return 0
        return len(set(REQUIRED).intersection(header))

    return max(DELIMITERS, key=required)


def _records(text: str, delimiter: str, path: Path, first: int) -> Iterator[Cells]:
    """Every record's cells, and the line where it begins: a quoted cell may span several lines.

    Args:
        first: the line of the file where the text begins.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + first
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
        return f"a cell of more than {csv.field_size_limit()} characters; is a closing quote missing?"
    return "a closing quote is missing" if "end of data" in said else said


def _check_header(header: list[str], path: Path, line: int, also: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that lympho uses. An unnamed index column and unknown columns are ignored."""
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        tabs = (
            " (tabs? Save the table as CSV, with commas or semicolons)" if any("\t" in name for name in header) else ""
        )
        separated = "" if line == 1 else ", separated as line 1 says"
        alike = [name for name in header if name.strip().upper() in missing]
        capitals = f", in capitals as {', '.join(name.strip().upper() for name in alike)}"
        written = f"; it has {', '.join(alike)}, but names must be written{capitals}" if alike else ""
        raise CohortError(
            f"{path}: has no column {', '.join(missing)}{tabs}{written}. Line {line} must name the columns{separated}"
        )
    columns = tuple(name for name in header if name in REQUIRED + OPTIONAL + also)
    twice = [name for name, times in Counter(columns).items() if times > 1]
    if twice:
        raise CohortError(f"{path}: has the column {', '.join(twice)} more than once. Keep one")
    return columns


def _with_cells(records: Iterator[Cells], header: list[str], columns: tuple[str, ...], path: Path) -> list[Cells]:
    """The records with at least one non-empty cell.

    Raises:
        CohortError: one lacks a column that lympho uses, or has a non-empty cell beyond the header's columns.
    """
    last = _last_read(header, columns)
    lines = []
    for line, cells in records:
        if not any(cells):
            continue
        if len(cells) <= last or any(cells[len(header) :]):
            raise CohortError(f"{path}, {_uneven(line, cells, header)}. Correct the line")
        lines.append((line, cells))
    return lines


def _last_read(header: list[str], columns: tuple[str, ...]) -> int:
    """The index of the last column that lympho uses."""
    return max(index for index, name in enumerate(header) if name in columns)


def _uneven(line: int, cells: list[str], header: list[str]) -> str:
    return f"line {line}: {len(cells)} cells, but the header has {len(header)} columns"


def _check_split_numbers(lines: list[Cells], header: list[str], path: Path) -> None:
    """Refuse a comma-separated table with lines of unequal length where a number and the next cell may be one number.

    In `A1,M,1946-01-17,5,8,` under the header `ID,GENDER,DOB,LYMPH_COUNT,REMARK` a count of 5,8 would be read as 5.
    """
    uneven = next(_uneven(line, cells, header) for line, cells in lines if len(cells) != len(header))
    for line, cells in lines:
        for column, cell, after in zip(header, cells, cells[1:], strict=False):
            if column in NUMBERS and cell and after and _NUMBER.fullmatch(f"{cell},{after}"):
                raise CohortError(
                    f"{path}, line {line}, column {column}: this cell and the next may be one number with a decimal "
                    f"comma ({uneven}). Write decimal points, and as many cells in each line as in the header"
                )


def _check_missing_cells(lines: list[Cells], header: list[str], columns: tuple[str, ...], path: Path) -> None:
    """Refuse a table with a short line that may lack a cell in the middle, rather than empty cells at the end.

    Every cell after the gap would then be one column too far left, and the last column that lympho uses would contain a
    value of a later column. A short line is safe if that column has a plausible value in it and no line has anything
    after that column that could be such a value. The gap would go unnoticed in `A1,M,1946-01-17,12.3` under the header
    `ID,GENDER,DOB,LYMPH_COUNT,LEUKOCYTES`.
    """
    last = _last_read(header, columns)
    column = header[last]
    # An unnamed column that is empty in all lines does not count.
    width = max(_filled(cells) for cells in [header, *(cells for _, cells in lines)])
    # A line is short if it has fewer cells than another line that is no longer than the header; or, if most lines end
    # with more delimiters than the header, fewer than those lines.
    times = Counter(len(cells) for _, cells in lines)
    usual = max(times, key=lambda number: (times[number], number))
    whole = max(width, usual, *(number for number in times if number <= len(header)))
    short = [(line, cells) for line, cells in lines if len(cells) < whole and _filled(cells) < width]
    if not short:
        return
    if all(len(cells) < width for _, cells in lines):
        raise CohortError(
            f"{path}, {_uneven(*short[0], header)}, and no line has as many. Correct the lines or the header"
        )
    alike = next((line for line, cells in lines if any(_may_be(column, cell) for cell in cells[last + 1 :])), None)
    for line, cells in short:
        if not _may_be(column, cells[last]):
            why = f"{column} has no value"
        elif alike is not None:
            why = f"in line {alike} a cell after {column} could be a value of {column} too"
        else:
            continue
        raise CohortError(
            f"{path}, line {line}: {len(cells)} cells, but other lines have {whole}; a cell in the middle may be "
            f"missing: {why}. Write as many cells in each line as in the header"
        )


def _filled(cells: list[str]) -> int:
    """The number of cells up to the last non-empty one."""
    return max((index + 1 for index, cell in enumerate(cells) if cell), default=0)


def _may_be(column: str, cell: str) -> bool:
    """Whether a cell could be a value of this column; any text could be an ID or a sex."""
    return any(character.isdigit() for character in cell) if column in WITH_DIGITS else bool(cell)


def _with_points(rows: list[Row], path: Path) -> list[Row]:
    """The rows of a semicolon-separated table, with decimal points in its numbers.

    Raises:
        CohortError: one number has a decimal comma and another a decimal point. One of them may separate thousands.
    """
    written: str | None = None  # decimal separator of the first number with a fraction
    for row in rows:
        for column in (name for name in row.cells if name in NUMBERS):
            separator = _separator(row.cells[column])
            written = written or separator
            if separator and separator != written:
                raise CohortError(
                    f"{path}, line {row.line}, column {column}: {SEPARATOR_NAMES[separator]}, but an earlier number "
                    f"has {SEPARATOR_NAMES[str(written)]}. No number in this table can be trusted: use one separator"
                )
    return rows if written != "," else [Row(row.line, _pointed(row.cells)) for row in rows]


def _separator(cell: str) -> str | None:
    """The decimal point or comma of a number; None for a whole number and for what is no number, such as 1.234,5."""
    return next((sign for sign in ".," if sign in cell), None) if _NUMBER.fullmatch(cell) else None


def _pointed(cells: dict[str, str]) -> dict[str, str]:
    numbers = {name: cells[name].replace(",", ".") for name in NUMBERS if _separator(cells.get(name, ""))}
    return cells | numbers
