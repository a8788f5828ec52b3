"""Reads a cohort's table: one row a patient, each either clinically complete or with the verdict why not.

Format of the public lymphocytosis challenge: ID, GENDER, DOB, LYMPH_COUNT, for training LABEL, optionally SAMPLE_DATE
and AGE. Values never appear in messages that may reach a log; IDs, lines and columns do.
"""

import csv
import datetime as dt
import hashlib
import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from infer.dates import age_in_years, check_date_format, parse_column
from infer.errors import CohortError
from infer.manifest import Plausible

TABLE = "clinical_annotation.csv"
REQUIRED = ("ID", "GENDER", "DOB", "LYMPH_COUNT")
OPTIONAL = ("LABEL", "SAMPLE_DATE", "AGE")
CLINICAL_NAMES = ("sex", "lymph_count", "age_years")


@dataclass(frozen=True)
class Clinical:
    """What the hospital knows beside the pictures."""

    female: bool
    lymph_count: float  # 10^9/L
    age_years: float

    def vector(self) -> npt.NDArray[np.float32]:
        """The networks' clinical input, raw: (3,) sex (F = 1), count in 10^9/L, age in years."""
        return np.array([self.female, self.lymph_count, self.age_years], dtype=np.float32)


@dataclass(frozen=True)
class Verdict:
    """Why a patient has no probability: `refused` by its data, or `failed` though it should have been scorable."""

    status: Literal["refused", "failed"]
    reason: str  # "code: sentence"


@dataclass(frozen=True)
class Patient:
    """One row of the table."""

    patient_id: str
    line: int  # in the table, the header is line 1
    clinical: Clinical | None
    verdict: Verdict | None
    label: str = ""  # the cell as it stands; training checks it


@dataclass(frozen=True)
class Cohort:
    """The table, read."""

    folder: Path
    table: Path
    table_sha256: str
    patients: tuple[Patient, ...]  # in the table's order
    has_sample_dates: bool
    has_labels: bool


@dataclass(frozen=True)
class _Row:
    line: int
    cells: dict[str, str]


def read_cohort(
    folder: Path,
    plausible: Plausible,
    *,
    annotations: Path | None = None,
    reference_date: dt.date | None,
    date_format: str | None = None,
) -> Cohort:
    """Read the table of a cohort.

    Args:
        folder: holds the table and one folder of pictures a patient.
        plausible: outside these ranges a patient is refused.
        annotations: the table, where it does not lie in the folder under its usual name.
        reference_date: ages are taken at SAMPLE_DATE, where there is none at this date; None refuses such patients.
        date_format: strptime format of all dates in the table.

    Raises:
        UsageError: the date format gives no dates.
        CohortError: the table is missing, unreadable, ragged, lacks a column, has no row, or its dates are in doubt.
    """
    if date_format is not None:
        check_date_format(date_format)
    table = annotations or folder / TABLE
    if not folder.is_dir():
        raise CohortError(f"{folder}: no such folder of patients")
    try:
        if table.exists() and not table.is_file():  # a pipe would keep the night waiting
            raise CohortError(f"{table}: is no file. Name the table with --annotations")
        data = table.read_bytes()
    except OSError as error:
        raise CohortError(f"{table}: cannot be read ({error.strerror}). Name the table with --annotations") from error
    columns, rows = _parse(data, table)
    ages = _ages(rows, columns, table, reference_date, date_format)
    times = Counter(row.cells["ID"] for row in rows)
    patients: dict[tuple[str, int], Patient] = {}
    for row, age in zip(rows, ages, strict=True):
        patient_id = row.cells["ID"]
        # A patient that stands twice has one result: failed, at its first place. Rows without ID stay apart.
        key = (patient_id, 0 if patient_id else row.line)
        if key not in patients:
            patients[key] = _patient(row, age, times[patient_id], plausible)
    return Cohort(
        folder=folder,
        table=table,
        table_sha256=hashlib.sha256(data).hexdigest(),
        patients=tuple(patients.values()),
        has_sample_dates="SAMPLE_DATE" in columns,
        has_labels="LABEL" in columns,
    )


def _parse(data: bytes, table: Path) -> tuple[list[str], list[_Row]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CohortError(f"{table}, line {line}: not UTF-8 text. Save the table as CSV in UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = _check_header(header, table)
        rows = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise CohortError(
                    f"{table}, line {reader.line_num}: {len(cells)} cells where the header has {len(header)} columns. "
                    f"Correct the line"
                )
            values = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if name in columns}
            rows.append(_Row(reader.line_num, values))
    except csv.Error as error:
        raise CohortError(f"{table}, line {reader.line_num}: {error}. Correct the line") from error
    if not rows:
        raise CohortError(f"{table}: has no patient")
    return columns, rows


def _check_header(header: list[str], table: Path) -> list[str]:
    """The columns that lympho reads. An unnamed index column and columns it does not know are left alone."""
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        hint = " (semicolons? Save the table with commas)" if any(";" in name for name in header) else ""
        raise CohortError(f"{table}: has no column {', '.join(missing)}{hint}")
    columns = [name for name in header if name in REQUIRED + OPTIONAL]
    twice = [name for name, times in Counter(columns).items() if times > 1]
    if twice:
        raise CohortError(f"{table}: has the column {', '.join(twice)} more than once. Keep one")
    return columns


def _ages(
    rows: list[_Row], columns: list[str], table: Path, reference_date: dt.date | None, date_format: str | None
) -> list[float | Verdict]:
    """Each row's age in years, or why it has none."""

    def dates(column: str) -> list[dt.date | None]:
        if column not in columns:
            return [None] * len(rows)
        cells = [row.cells[column] for row in rows]
        return parse_column(cells, [row.line for row in rows], column, str(table), date_format)

    ages: list[float | Verdict] = []
    for row, birth, sample in zip(rows, dates("DOB"), dates("SAMPLE_DATE"), strict=True):
        cells = row.cells
        if cells.get("AGE"):
            age = _number(cells["AGE"])
            ages.append(_refused("age_unreadable", f"AGE in line {row.line} is no number") if age is None else age)
        elif birth is None:
            code = "birth_date_unreadable" if cells["DOB"] else "birth_date_missing"
            state = "is no date lympho knows" if cells["DOB"] else "is empty"
            ages.append(_refused(code, f"DOB in line {row.line} {state}"))
        elif cells.get("SAMPLE_DATE") and sample is None:
            ages.append(_refused("sample_date_unreadable", f"SAMPLE_DATE in line {row.line} is no date lympho knows"))
        elif (at := sample or reference_date) is None:
            ages.append(_refused("sample_date_missing", f"SAMPLE_DATE in line {row.line} is empty"))
        else:
            ages.append(age_in_years(birth, at))
    return ages


def _patient(row: _Row, age: float | Verdict, times: int, plausible: Plausible) -> Patient:
    patient_id = row.cells["ID"]
    label = row.cells.get("LABEL", "")
    verdict = _bad_id(patient_id, row.line, times)
    clinical = verdict or _clinical(row, age, plausible)
    if isinstance(clinical, Verdict):
        return Patient(patient_id, row.line, None, clinical, label)
    return Patient(patient_id, row.line, clinical, None, label)


def _bad_id(patient_id: str, line: int, times: int) -> Verdict | None:
    if not patient_id:
        return Verdict("failed", f"id_missing: ID in line {line} is empty")
    if patient_id in (".", "..") or not patient_id.isprintable() or "/" in patient_id or "\\" in patient_id:
        return Verdict("failed", f"id_unusable: ID in line {line} cannot be the name of a folder")
    if times > 1:
        return Verdict("failed", f"id_duplicate: the ID stands {times} times in the table")
    return None


def _clinical(row: _Row, age: float | Verdict, plausible: Plausible) -> Clinical | Verdict:
    cells = row.cells
    sex = cells["GENDER"].upper()
    if sex not in ("M", "F"):
        return _refused("sex_missing", f"GENDER in line {row.line} is neither M nor F")
    if not cells["LYMPH_COUNT"]:
        return _refused("count_missing", f"LYMPH_COUNT in line {row.line} is empty")
    count = _number(cells["LYMPH_COUNT"])
    if count is None:
        return _refused("count_unreadable", f"LYMPH_COUNT in line {row.line} is no number (decimal point, no unit)")
    if count <= 0 or count not in plausible.lymph_count:
        hint = "; it looks like cells per microlitre, 10^9/L is expected" if count > plausible.lymph_count.high else ""
        return _refused("count_implausible", f"LYMPH_COUNT in line {row.line} is outside the plausible range{hint}")
    if isinstance(age, Verdict):
        return age
    if age not in plausible.age_years:
        return _refused("age_implausible", f"the age from line {row.line} is outside the plausible range")
    return Clinical(female=sex == "F", lymph_count=count, age_years=age)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def _refused(code: str, sentence: str) -> Verdict:
    return Verdict("refused", f"{code}: {sentence}")
