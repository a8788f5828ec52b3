"""Dates of birth and of samples as hospitals write them, and ages in years.

With slashes m/d/Y, with dashes d-m-Y or Y-m-d, four-digit years only. A slash date that is impossible as m/d/Y
makes the whole column suspect: 4/13/2019 beside 13/4/2019 means that 5/6/2019 cannot be known, so nothing is guessed.
"""

import datetime as dt
import re
from collections.abc import Sequence

from infer.errors import CohortError, UsageError

DAYS_PER_YEAR = 365.25

_SLASHES = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_LIKE_SLASHES = re.compile(r"\d+\s*/\s*\d+\s*/\s*\d+")  # a date, though perhaps none in m/d/Y; N/A is not one
_DAY_FIRST = re.compile(r"(\d{1,2})-(\d{1,2})-(\d{4})", re.ASCII)
_YEAR_FIRST = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)


def age_in_years(birth: dt.date, at: dt.date) -> float:
    """Age in years of 365.25 days; negative if `at` lies before `birth`."""
    return (at - birth).days / DAYS_PER_YEAR


def check_date_format(date_format: str) -> None:
    """Refuse a format that cannot give a date back.

    Raises:
        UsageError: it is no strptime format, or leaves out day, month or year.
    """
    probe = dt.date(1987, 12, 31)
    try:
        given = _by_format(probe.strftime(date_format), date_format)
    except (UnicodeEncodeError, re.error):  # bytes that are no text; strptime on %d twice
        given = None
    if given != probe:
        raise UsageError(f"--date-format {date_format}: must give day, month and year, for example %d/%m/%Y")


def parse_column(
    cells: Sequence[str], rows: Sequence[int], column: str, path: str, date_format: str | None
) -> list[dt.date | None]:
    """Read a column of dates by one rule: a date per cell, None where a cell is empty or unreadable.

    Args:
        cells: the column's cells, stripped of blanks.
        rows: each cell's line in the file, for the message.
        date_format: a strptime format that replaces the rule.

    Raises:
        CohortError: a cell with slashes is impossible as m/d/Y, so the column's meaning is in doubt.
    """
    if date_format is not None:
        return [_by_format(cell, date_format) for cell in cells]
    dates: list[dt.date | None] = []
    for cell, row in zip(cells, rows, strict=True):
        date = _by_rule(cell)
        if date is None and _LIKE_SLASHES.fullmatch(cell):
            raise CohortError(
                f"{path}, line {row}, column {column}: a date with slashes that is not month/day/four-digit year. "
                f"No date in this column can be trusted: say how they are written, for example "
                f"--date-format %d/%m/%Y"
            )
        dates.append(date)
    return dates


def _by_format(cell: str, date_format: str) -> dt.date | None:
    if any(sign.isdecimal() and not sign.isascii() for sign in cell):  # strptime takes the digits of every script
        return None
    try:
        return dt.datetime.strptime(cell, date_format).date()
    except ValueError:
        return None


def _by_rule(cell: str) -> dt.date | None:
    if match := _SLASHES.fullmatch(cell):
        month, day, year = match.groups()
    elif match := _DAY_FIRST.fullmatch(cell):
        day, month, year = match.groups()
    elif match := _YEAR_FIRST.fullmatch(cell):
        year, month, day = match.groups()
    else:
        return None
    try:
        return dt.date(int(year), int(month), int(day))
    except ValueError:
        return None
