"""Ages from the table's dates, or the reason why a row has none."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

from infer.cohort.dates import NO_BIRTHS, NO_SAMPLES, DateColumn, age_in_years, is_placeholder, parse_column
from infer.cohort.patient import Verdict
from infer.cohort.table import Row, Table, number
from infer.reasons import Reason

A_DAY = dt.timedelta(days=1)  # the hospital's local date may be this far ahead of UTC


def date_columns(table: Table, path: Path, formats: Mapping[str, str | None]) -> dict[str, DateColumn]:
    lines = [row.line for row in table.rows]
    return {
        column: parse_column(
            [row.cells[column] for row in table.rows],
            lines,
            column,
            str(path),
            formats[column],
            # A spreadsheet that separates cells by semicolons is not American, so month/day is not the default there.
            proof_needed=table.delimiter == ";",
        )
        for column in ("DOB", "SAMPLE_DATE")
        if column in table.columns
    }


def ages_of(
    table: Table, columns: Mapping[str, DateColumn], reference_date: dt.date | None, today: dt.date
) -> list[float | Verdict]:
    """Each row's age in years, or the reason why it has none."""
    none: list[dt.date | None] = [None] * len(table.rows)
    samples = columns["SAMPLE_DATE"].dates if "SAMPLE_DATE" in columns else none
    return [
        _age(row, birth, sample, reference_date, today)
        for row, birth, sample in zip(table.rows, columns["DOB"].dates, samples, strict=True)
    ]


def sample_dates(table: Table, columns: Mapping[str, DateColumn]) -> list[str]:
    """Each row's SAMPLE_DATE as an ISO date; empty where there is none, or one that no sample was taken on."""
    if "SAMPLE_DATE" not in columns:
        return [""] * len(table.rows)
    return [
        "" if date is None or is_placeholder(row.cells["SAMPLE_DATE"], date, NO_SAMPLES) else date.isoformat()
        for row, date in zip(table.rows, columns["SAMPLE_DATE"].dates, strict=True)
    ]


def _age(
    row: Row, birth: dt.date | None, sample: dt.date | None, reference_date: dt.date | None, today: dt.date
) -> float | Verdict:
    cells, line = row.cells, row.line
    if sample is not None and sample > today + A_DAY:
        return Verdict.of(Reason.SAMPLE_DATE_IN_FUTURE, line=line)
    if cells.get("AGE"):
        age = number(cells["AGE"])
        return Verdict.of(Reason.AGE_UNREADABLE, line=line) if age is None else age
    if not cells["DOB"]:
        return Verdict.of(Reason.BIRTH_DATE_MISSING, line=line)
    if is_placeholder(cells["DOB"], birth, NO_BIRTHS):
        return Verdict.of(Reason.BIRTH_DATE_PLACEHOLDER, line=line)
    if birth is None:
        return Verdict.of(Reason.BIRTH_DATE_UNREADABLE, line=line)
    if is_placeholder(cells.get("SAMPLE_DATE", ""), sample, NO_SAMPLES):
        return Verdict.of(Reason.SAMPLE_DATE_PLACEHOLDER, line=line)
    if cells.get("SAMPLE_DATE") and sample is None:
        return Verdict.of(Reason.SAMPLE_DATE_UNREADABLE, line=line)
    if (at := sample or reference_date) is None:
        return Verdict.of(Reason.SAMPLE_DATE_MISSING, line=line)
    if sample is not None and sample < birth:
        return Verdict.of(Reason.SAMPLE_DATE_BEFORE_BIRTH, line=line)
    return age_in_years(birth, at)
