"""Reads a cohort's table: one row a patient, each either clinically complete or with the verdict why not.

Format of the public lymphocytosis challenge: ID, GENDER, DOB, LYMPH_COUNT, for training LABEL, optionally SAMPLE_DATE
and AGE. Values never appear in messages that may reach a log; IDs, lines and columns do.
"""

import datetime as dt
import hashlib
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from infer.dates import age_in_years, check_date_format, parse_column
from infer.errors import CohortError
from infer.manifest import Plausible
from infer.table import Row, Table, number, parse_table

TABLE = "clinical_annotation.csv"


@dataclass(frozen=True, slots=True)
class Clinical:
    """What the hospital knows beside the pictures."""

    female: bool
    lymph_count: float  # 10^9/L
    age_years: float

    def vector(self) -> npt.NDArray[np.float32]:
        """The networks' clinical input, raw: (3,) sex (F = 1), count in 10^9/L, age in years."""
        return np.array([self.female, self.lymph_count, self.age_years], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a patient has no probability: `refused` by its data, or `failed` though it should have been scorable."""

    status: Literal["refused", "failed"]
    reason: str  # "code: sentence"


@dataclass(frozen=True, slots=True)
class Patient:
    """One row of the table."""

    patient_id: str
    line: int  # where the row begins in the table, the header is line 1
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
    folders_without_row: tuple[str, ...] = ()  # in the cohort's folder, but named by no row; sorted


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
        CohortError: the folder or the table is missing or unreadable, or the table is ragged, lacks a column, has no
            row, or its dates or numbers are in doubt.
    """
    if date_format is not None:
        check_date_format(date_format)
    path = annotations or folder / TABLE
    data = _read(folder, path)
    table = parse_table(data, path)
    rows = table.rows
    ages = _ages(table, path, reference_date, date_format)
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
        table=path,
        table_sha256=hashlib.sha256(data).hexdigest(),
        patients=tuple(patients.values()),
        has_sample_dates="SAMPLE_DATE" in table.columns,
        has_labels="LABEL" in table.columns,
        folders_without_row=_folders_without_row(folder, times),
    )


def _read(folder: Path, table: Path) -> bytes:
    try:
        if not folder.is_dir():
            raise CohortError(f"{folder}: no such folder of patients")
    except OSError as error:
        raise CohortError(f"{folder}: cannot be read ({error.strerror}). Name another folder") from error
    try:
        if table.exists() and not table.is_file():  # a pipe would keep the night waiting
            raise CohortError(f"{table}: is no file. Name the table with --annotations")
        return table.read_bytes()
    except OSError as error:
        raise CohortError(f"{table}: cannot be read ({error.strerror}). Name the table with --annotations") from error


def _folders_without_row(folder: Path, named: Collection[str]) -> tuple[str, ...]:
    """The folders in the cohort's folder that no row names, sorted; hidden ones are not meant for lympho."""
    try:
        with os.scandir(folder) as entries:  # knows of most entries what they are without asking the disk for each
            return tuple(
                sorted(
                    entry.name
                    for entry in entries
                    if entry.name not in named and not entry.name.startswith(".") and _is_folder(entry)
                )
            )
    except OSError as error:
        raise CohortError(f"{folder}: cannot be read ({error.strerror}). Make the folder readable") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or where nobody may look
        return False


def _ages(table: Table, path: Path, reference_date: dt.date | None, date_format: str | None) -> list[float | Verdict]:
    """Each row's age in years, or why it has none."""

    def dates(column: str) -> list[dt.date | None]:
        if column not in table.columns:
            return [None] * len(table.rows)
        cells = [row.cells[column] for row in table.rows]
        return parse_column(cells, [row.line for row in table.rows], column, str(path), date_format)

    ages: list[float | Verdict] = []
    for row, birth, sample in zip(table.rows, dates("DOB"), dates("SAMPLE_DATE"), strict=True):
        cells = row.cells
        if cells.get("AGE"):
            age = number(cells["AGE"])
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


def _patient(row: Row, age: float | Verdict, times: int, plausible: Plausible) -> Patient:
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


def _clinical(row: Row, age: float | Verdict, plausible: Plausible) -> Clinical | Verdict:
    cells = row.cells
    sex = cells["GENDER"].upper()
    if sex not in ("M", "F"):
        return _refused("sex_missing", f"GENDER in line {row.line} is neither M nor F")
    if not cells["LYMPH_COUNT"]:
        return _refused("count_missing", f"LYMPH_COUNT in line {row.line} is empty")
    count = number(cells["LYMPH_COUNT"])
    if count is None:
        return _refused(
            "count_unreadable", f"LYMPH_COUNT in line {row.line} is no number (digits, decimal point, no unit)"
        )
    if count <= 0 or count not in plausible.lymph_count:
        hint = "; it looks like cells per microlitre, 10^9/L is expected" if count > plausible.lymph_count.high else ""
        return _refused("count_implausible", f"LYMPH_COUNT in line {row.line} is outside the plausible range{hint}")
    if isinstance(age, Verdict):
        return age
    if age not in plausible.age_years:
        return _refused("age_implausible", f"the age from line {row.line} is outside the plausible range")
    return Clinical(female=sex == "F", lymph_count=count, age_years=age)


def _refused(code: str, sentence: str) -> Verdict:
    return Verdict("refused", f"{code}: {sentence}")
