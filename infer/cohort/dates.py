"""Dates of birth and sampling as hospitals write them, and ages in years.

With slashes m/d/Y, with dashes d-m-Y or Y-m-d, four-digit years only; a time of day after a date is ignored. The order
of day and month is decided once for the whole column, never row by row: if 4/13/2019 and 13/4/2019 are in one column,
5/6/2019 is ambiguous.
"""

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass

from infer.errors import CohortError, UsageError

DAYS_PER_YEAR = 365.25
ISO = "iso"  # instead of a strptime format: year-month-day, with or without a time of day and an offset
DAY_FIRST, MONTH_FIRST = "day/month/year", "month/day/year"
USUAL = {"/": MONTH_FIRST, "-": DAY_FIRST}  # by separator
FORMATS = {DAY_FIRST: "%d{0}%m{0}%Y", MONTH_FIRST: "%m{0}%d{0}%Y"}  # {0}: the separator
# What databases and spreadsheets write for an unknown date: their first day, their day 0 and the day before.
NO_BIRTHS = frozenset({dt.date(1900, 1, 1), dt.date(1899, 12, 31), dt.date(1899, 12, 30)})
NO_SAMPLES = NO_BIRTHS | {dt.date(1970, 1, 1), dt.date(1980, 1, 1)}  # also epochs, but people were born on these days

_TIME = re.compile(
    r"[T ] ?(?:[01]?\d|2[0-4])(?::[0-5]\d){1,2}(?:[.,]\d+)?(?: ?[AP]\.?M\.?)?(?: ?(?:Z|[+-]\d\d(?::?\d\d)?))?$",
    re.ASCII | re.IGNORECASE,
)
_YEAR_FIRST = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)
_YEAR_LAST = re.compile(r"(\d{1,2})([/-])(\d{1,2})\2(\d{4})", re.ASCII)
_PROOF = re.compile(r"(?<!\d)(\d{1,2})([/-])(\d{1,2})\2(\d{4})(?!\d)", re.ASCII)  # with any text around it
_SLASHES_YEAR_FIRST = re.compile(r"\d{4}/\d{1,2}/\d{1,2}", re.ASCII)
_FOR_ZEROS = re.compile(r"(\d{1,4})\s*([/.-])\s*(\d{1,4})\s*\2\s*(\d{1,4})", re.ASCII)
_LIKE_A_DATE = re.compile(r"\d+\s*([/-])\s*\d+\s*\1\s*\d+")  # digits of any script
_WITHOUT_GAP = re.compile(r"%[dmyY]%[dmyY]")  # a format with no separator between two of its numbers
_WITH_TIME = re.compile(r"%[HIMSfpzXcT]")


@dataclass(frozen=True)
class DateColumn:
    """A parsed column of dates."""

    dates: list[dt.date | None]  # None where a cell is empty or unreadable
    reading: str  # how the dates were read, for run.json
    unproven: bool = False  # whether a date could also be read in the other order


def age_in_years(birth: dt.date, at: dt.date) -> float:
    """Age in years of 365.25 days; negative if `at` is before `birth`."""
    return (at - birth).days / DAYS_PER_YEAR


def check_date_format(date_format: str, option: str = "--date-format", *, births: bool = True) -> None:
    """Refuse a format that does not determine a date.

    Args:
        option: the option that gave it, for the message.
        births: whether it is for dates of birth, which reach back more than a hundred years.

    Raises:
        UsageError: it is not a strptime format, lacks day, month or year, or has two-digit years for births.
    """
    if date_format == ISO:
        return
    if not _gives_back(dt.date(1987, 12, 31), date_format):
        raise UsageError(f"{option} {date_format}: must give day, month and year, for example %d/%m/%Y, or be {ISO}")
    if births and not _gives_back(dt.date(1918, 6, 16), date_format):  # strptime reads the year 18 as 2018
        raise UsageError(
            f"{option} {date_format}: two-digit years, which cannot tell a birth in 1918 from one in 2018. Write "
            f"births with four-digit years (%Y); for samples only, use --sample-date-format"
        )


def _gives_back(date: dt.date, date_format: str) -> bool:
    moment = dt.datetime(date.year, date.month, date.day, tzinfo=dt.UTC)  # so that %z produces an offset
    try:
        return _by_format(moment.strftime(date_format), date_format) == date
    except (UnicodeEncodeError, re.error):  # bytes that are not text; strptime if %d occurs twice
        return False


def parse_column(
    cells: Sequence[str],
    rows: Sequence[int],
    column: str,
    path: str,
    date_format: str | None,
    *,
    proof_needed: bool = False,
) -> DateColumn:
    """Parse a column of dates by one rule.

    Args:
        cells: the column's cells, stripped of blanks.
        rows: each cell's line in the file, for the message.
        date_format: a strptime format, or ISO, used instead of the rule.
        proof_needed: whether an unambiguous date must prove the order of day and month, because nothing else in the
            table tells which country it comes from.

    Raises:
        CohortError: a date is impossible in the rule's order, or nothing proves the order: the column is then
            ambiguous.
    """
    if date_format is not None:
        return DateColumn([_by_format(cell, date_format) for cell in cells], date_format)
    bare = [_TIME.sub("", cell) for cell in cells]
    doubt = _Doubt(path, column)
    orders = {sign: _order(cells, bare, rows, sign, doubt, proof_needed) for sign in USUAL}
    dates: list[dt.date | None] = []
    for cell, row in zip(bare, rows, strict=True):
        if _LIKE_A_DATE.fullmatch(cell) and not (_YEAR_LAST.fullmatch(cell) or _YEAR_FIRST.fullmatch(cell)):
            date_format = "%Y/%m/%d" if _SLASHES_YEAR_FIRST.fullmatch(cell) else None
            raise doubt.error(row, "a date that is neither day, month and four-digit year nor Y-m-d", date_format)
        dates.append(_by_rule(cell, orders))
    used = [sign for sign in USUAL if any(_is_year_last(cell, sign) for cell in bare)]
    readings = [f"with {sign} {orders[sign].name}{'' if orders[sign].proven else ', unproven'}" for sign in used]
    return DateColumn(dates, "; ".join(readings) or "year-month-day", not all(orders[sign].proven for sign in used))


def is_placeholder(cell: str, date: dt.date | None, none: frozenset[dt.date]) -> bool:
    """Whether a date is a placeholder for an unknown date, such as 00/00/1929 or one of `none`."""
    return date in none or has_zero_part(_TIME.sub("", cell))


def has_zero_part(cell: str) -> bool:
    """Whether a date with a four-digit year has zero as day, month or year."""
    match = _FOR_ZEROS.fullmatch(cell)
    if match is None:
        return False
    parts = match.group(1, 3, 4)
    return 4 in (len(parts[0]), len(parts[2])) and 0 in map(int, parts)


@dataclass(frozen=True)
class _Doubt:
    """Where dates are ambiguous, for the message."""

    path: str
    column: str

    def error(self, row: int, what: str, date_format: str | None) -> CohortError:
        advice = f"use --date-format {date_format}, or " if date_format else ""
        return CohortError(
            f"{self.path}, line {row}, column {self.column}: {what}. No date in this column can be trusted: {advice}"
            f"write all dates as year-month-day, with four-digit years"
        )


@dataclass(frozen=True)
class _Order:
    """Which comes first in a column's dates, day or month."""

    name: str
    proven: bool  # by a date, or because no date is ambiguous


def _order(
    cells: Sequence[str], bare: Sequence[str], rows: Sequence[int], sign: str, doubt: _Doubt, proof_needed: bool
) -> _Order:
    """The order of day and month in the column's dates with this separator.

    Args:
        bare: the cells without a time of day. A date with other text around it is not parsed, but proves the order.
    """
    usual = USUAL[sign]
    (other,) = {DAY_FIRST, MONTH_FIRST} - {usual}
    proven: dict[str, int] = {}  # order -> the first line that allows no other
    unclear: int | None = None  # the first ambiguous line
    for cell, without_time, row in zip(cells, bare, rows, strict=True):
        match = _PROOF.search(cell)
        if match is None or match[2] != sign:
            continue
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        day_first, month_first = _date(year, second, first), _date(year, first, second)
        if day_first and month_first:
            if first != second and _is_year_last(without_time, sign):
                unclear = unclear or row
        elif day_first or month_first:
            proven.setdefault(DAY_FIRST if day_first else MONTH_FIRST, row)
    if len(proven) == 2:
        what = f"the column has dates as {usual} and as {other}"
        raise doubt.error(max(proven.values()), what, None)
    if other in proven and not proof_needed:
        what = f"a date that can only be {other}, but {usual} is expected"
        raise doubt.error(proven[other], what, FORMATS[other].format(sign))
    if not proven and unclear and proof_needed:
        what = f"a date that may be {DAY_FIRST} or {MONTH_FIRST}, and no other date in this column shows which"
        raise doubt.error(unclear, what, FORMATS[DAY_FIRST].format(sign))
    return _Order(other if other in proven else usual, bool(proven) or not unclear)


def _is_year_last(cell: str, sign: str) -> bool:
    match = _YEAR_LAST.fullmatch(cell)
    return match is not None and match[2] == sign


def _by_rule(cell: str, orders: dict[str, _Order]) -> dt.date | None:
    if match := _YEAR_FIRST.fullmatch(cell):
        return _date(*map(int, match.groups()))
    if match := _YEAR_LAST.fullmatch(cell):
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        return _date(year, second, first) if orders[match[2]].name == DAY_FIRST else _date(year, first, second)
    return None


def _date(year: int, month: int, day: int) -> dt.date | None:
    try:
        return dt.date(year, month, day)
    except ValueError:
        return None


def _by_format(cell: str, date_format: str) -> dt.date | None:
    if any(sign.isdecimal() and not sign.isascii() for sign in cell):  # strptime accepts the digits of every script
        return None
    if date_format == ISO or not _WITH_TIME.search(date_format):
        cell = _TIME.sub("", cell)
    if date_format == ISO:
        match = _YEAR_FIRST.fullmatch(cell)
        return _date(*map(int, match.groups())) if match else None
    try:
        date = dt.datetime.strptime(cell, date_format).date()
    except ValueError:
        return None
    # Without separators, 1121950 would be read as 11 February: a spreadsheet has dropped the zero of 01121950.
    return None if _WITHOUT_GAP.search(date_format) and date.strftime(date_format) != cell else date
