"""Reads a table of patients into named cells, each row with its line, and the cells that hold numbers into numbers.

Two things are settled once for the whole file, never row by row: the header, or a line `sep=;` before it, says whether
commas or semicolons part the cells, and in a table with semicolons, as a French or German spreadsheet writes it, the
numbers say whether they have decimal points or decimal commas. Values never appear in messages; lines and columns do.

Spreadsheets leave out empty cells at a line's end, or write too many. Then the number of cells does not show that each
stands in its own column, so such a table is read only if a cell in the wrong column would show in another way.
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
WITH_DIGITS = ("DOB", "LYMPH_COUNT", "LABEL", "SAMPLE_DATE", "AGE")  # what these hold has a digit in it
BYTE_ORDER_MARK = "\ufeff"
END_OF_FILE = "\x1a"  # Ctrl-Z, with which DOS programs end a text file

# Written out because float() also takes "nan", "1_000" and the digits of every script. No two parts of it can match the
# same digits, so that a long cell costs no more than its length.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_LINE_END = re.compile(rb"\r\n?|\n")
_FIRST_LINE = re.compile(r"([^\r\n]*)(?:\r\n?|\n|$)")

Cells = tuple[int, list[str]]  # the line in which a record begins, and its cells


@dataclass(frozen=True)
class Row:
    """The cells of one patient that lympho reads, stripped of blanks."""

    line: int  # where it begins; the file's first line is 1
    cells: dict[str, str]  # by column


@dataclass(frozen=True)
class Table:
    """A table with at least one row; its numbers have decimal points, however the file writes them."""

    columns: tuple[str, ...]  # those that lympho reads
    rows: tuple[Row, ...]
    delimiter: str  # between the file's cells: a comma or a semicolon


def parse_table(data: bytes, path: Path) -> Table:
    """Split the bytes of a CSV file into cells.

    Args:
        path: the file, for the messages.

    Raises:
        CohortError: it is not UTF-8, lacks a column, has no row, is parted by something else than commas or semicolons,
            has a line whose cells may stand in the wrong columns, or writes its numbers in two ways.
    """
    text, named, first = _without_separator_line(_decode(data, path), path)
    delimiter = named or _delimiter(text, path)
    records = _records(text, delimiter, path, first)
    line, header = next(records, (first, []))
    columns = _check_header(header, path, line)
    lines = _with_cells(records, header, columns, path)
    if not lines:
        raise CohortError(f"{path}: has no patient")
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
    """The finite number that a cell holds in ASCII digits with a decimal point, or None."""
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
            f"{path}, line {_line_after(data[:at])}: a NUL character: the file is damaged, or UTF-16 without a mark. "
            f"Save the table as CSV in UTF-8"
        )
    text = text.lstrip(BYTE_ORDER_MARK)  # a program that does not know the mark adds another
    ended = text.rstrip("\r\n")
    return ended.rstrip(END_OF_FILE) if ended.endswith(END_OF_FILE) else text


def _line_after(data: bytes) -> int:
    """The line in which the byte after these stands; lines end as for the csv module, on any system."""
    return sum(1 for _ in _LINE_END.finditer(data)) + 1


def _without_separator_line(text: str, path: Path) -> tuple[str, str | None, int]:
    """The text from the header on, the delimiter that a first line such as `sep=;` names, and the header's line.

    Excel obeys such a line and shows it to nobody.

    Raises:
        CohortError: it names something else than a comma or a semicolon.
    """
    first = _FIRST_LINE.match(text)
    said = first[1].strip(" ") if first else ""
    if len(said) > 1 and said[0] == said[-1] == '"':
        said = said[1:-1]
    if first is None or said[:4].lower() != "sep=":
        return text, None, 1
    separator = said[4:]
    for delimiter in DELIMITERS:
        # More than one where a spreadsheet took the line for a row, and gave it as many cells as the others.
        if separator and not separator.strip(delimiter):
            return text[first.end() :].lstrip(BYTE_ORDER_MARK), delimiter, 2
    shown = f"'{separator}'" if len(separator) <= 4 and separator.isprintable() else "something else"
    what = {"": "nothing", "\t": "a tab"}.get(separator, shown)
    raise CohortError(
        f"{path}, line 1: names {what} as the separator (sep=). Save the table as CSV, with commas or semicolons"
    )


def _delimiter(text: str, path: Path) -> str:
    """What the header is split at to give the most of the required columns; in doubt, the comma."""

    def required(delimiter: str) -> int:
        try:
            _, header = next(_records(text, delimiter, path, 1), (1, []))
        except CohortError:  # a quoted header is broken at the wrong delimiter
            return 0
        return len(set(REQUIRED).intersection(header))

    return max(DELIMITERS, key=required)


def _records(text: str, delimiter: str, path: Path, first: int) -> Iterator[Cells]:
    """Every record's cells, and the line it begins in: a cell in quotes may hold further lines.

    Args:
        first: the line of the file at which the text begins.
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
        return f"a cell of more than {csv.field_size_limit()} characters; is a quote never closed?"
    return "a quote is never closed" if "end of data" in said else said


def _check_header(header: list[str], path: Path, line: int) -> tuple[str, ...]:
    """The columns that lympho reads. An unnamed index column and columns it does not know are left alone."""
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        tabs = (
            " (tabs? Save the table as CSV, with commas or semicolons)" if any("\t" in name for name in header) else ""
        )
        parted = "" if line == 1 else ", parted as line 1 says"
        raise CohortError(
            f"{path}: has no column {', '.join(missing)}{tabs}. Line {line} must name the columns{parted}"
        )
    columns = tuple(name for name in header if name in REQUIRED + OPTIONAL)
    twice = [name for name, times in Counter(columns).items() if times > 1]
    if twice:
        raise CohortError(f"{path}: has the column {', '.join(twice)} more than once. Keep one")
    return columns


def _with_cells(records: Iterator[Cells], header: list[str], columns: tuple[str, ...], path: Path) -> list[Cells]:
    """The records that have a cell that is not empty.

    Raises:
        CohortError: one lacks a column that lympho reads, or has a cell beyond the header's.
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
    """The index of the last column that lympho reads."""
    return max(index for index, name in enumerate(header) if name in columns)


def _uneven(line: int, cells: list[str], header: list[str]) -> str:
    return f"line {line}: {len(cells)} cells where the header has {len(header)} columns"


def _check_split_numbers(lines: list[Cells], header: list[str], path: Path) -> None:
    """Refuse a table with commas, and lines of unequal length, in which a number and the next cell may be one number.

    In `A1,M,1946-01-17,5,8,` below `ID,GENDER,DOB,LYMPH_COUNT,REMARK` a count of 5,8 would be read as 5.
    """
    uneven = next(_uneven(line, cells, header) for line, cells in lines if len(cells) != len(header))
    for line, cells in lines:
        for column, cell, after in zip(header, cells, cells[1:], strict=False):
            if column in NUMBERS and cell and after and _NUMBER.fullmatch(f"{cell},{after}"):
                raise CohortError(
                    f"{path}, line {line}, column {column}: with the next cell it may be one number with a decimal "
                    f"comma ({uneven}). Write decimal points, and as many cells in each line as in the header"
                )


def _check_missing_cells(lines: list[Cells], header: list[str], columns: tuple[str, ...], path: Path) -> None:
    """Refuse a table with a short line that may lack a cell in its middle, rather than empty cells at its end.

    Then every cell behind the gap stands one column too far left, and the last column that lympho reads holds what
    belongs to a column after it. This shows if that column holds a value in the short line, and if no line has anything
    after it that could be such a value. It would not show in `A1,M,1946-01-17,12.3` below
    `ID,GENDER,DOB,LYMPH_COUNT,LEUKOCYTES`.
    """
    last = _last_read(header, columns)
    column = header[last]
    # A column without a name that is empty in all lines does not count.
    width = max(_filled(cells) for cells in [header, *(cells for _, cells in lines)])
    # A line is short if it has fewer cells than another that is no longer than the header; or, where most lines end
    # with more delimiters than the header, fewer than those.
    times = Counter(len(cells) for _, cells in lines)
    usual = max(times, key=lambda number: (times[number], number))
    whole = max(width, usual, *(number for number in times if number <= len(header)))
    short = [(line, cells) for line, cells in lines if len(cells) < whole and _filled(cells) < width]
    if not short:
        return
    if all(len(cells) < width for _, cells in lines):
        raise CohortError(
            f"{path}, {_uneven(*short[0], header)}, and no line has so many. Correct the lines or the header"
        )
    alike = next((line for line, cells in lines if any(_may_be(column, cell) for cell in cells[last + 1 :])), None)
    for line, cells in short:
        if not _may_be(column, cells[last]):
            why = f"{column} holds no value"
        elif alike is not None:
            why = f"in line {alike} a cell after {column} could be a value of {column} too"
        else:
            continue
        raise CohortError(
            f"{path}, line {line}: {len(cells)} cells where other lines have {whole}, and perhaps one in the middle is "
            f"missing: {why}. Write as many cells in each line as in the header"
        )


def _filled(cells: list[str]) -> int:
    """The number of cells up to the last that is not empty."""
    return max((index + 1 for index, cell in enumerate(cells) if cell), default=0)


def _may_be(column: str, cell: str) -> bool:
    """Whether a cell could be a value of a column that lympho reads; any word could be an ID or a sex."""
    return any(character.isdigit() for character in cell) if column in WITH_DIGITS else bool(cell)


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
