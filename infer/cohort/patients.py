"""Reads a cohort's table: one row a patient, each either clinically complete or with the verdict why not.

Format of the public lymphocytosis challenge: ID, GENDER, DOB, LYMPH_COUNT, for training LABEL, optionally SAMPLE_DATE
and AGE. Values never appear in messages that may reach a log; IDs, lines and columns do.
"""

import datetime as dt
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infer.cohort.dates import (
    NO_BIRTHS,
    NO_SAMPLES,
    Column,
    age_in_years,
    check_date_format,
    is_placeholder,
    parse_column,
)
from infer.cohort.plausible import Plausible
from infer.cohort.sexes import Sex, sexes
from infer.cohort.table import Row, Table, number, parse_table
from infer.errors import CohortError
from infer.reasons import Reason

TABLE = "clinical_annotation.csv"
LONGEST_NAME = 255  # bytes, of a folder: and so characters at most
A_DAY = dt.timedelta(days=1)  # by which a hospital's calendar may be ahead of this machine's


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

    status: str  # refused or failed
    reason: str  # "code: sentence"

    @classmethod
    def of(cls, reason: Reason, **details: object) -> "Verdict":
        """The verdict of a reason; `details` fill the gaps of its sentence."""
        return cls(reason.status, reason.text(**details))


@dataclass(frozen=True, slots=True)
class Patient:
    """One row of the table."""

    patient_id: str
    line: int  # where the row begins in the table, the header is line 1
    clinical: Clinical | None
    verdict: Verdict | None
    label: str = ""  # the cell as it stands; training checks it
    look_alike: str = ""  # a folder whose name looks the same as the ID and is another, where no folder has the ID's


@dataclass(frozen=True)
class Cohort:
    """The table, read."""

    folder: Path
    table: Path
    table_sha256: str
    patients: tuple[Patient, ...]  # in the table's order
    has_sample_dates: bool
    has_labels: bool
    readings: Mapping[str, str] = field(default_factory=dict)  # column -> how it was read, for run.json
    unproven: tuple[str, ...] = ()  # columns with dates that could have been read in another order
    folders_without_row: tuple[str, ...] = ()  # in the cohort's folder, but named by no row; sorted


def read_cohort(
    folder: Path,
    plausible: Plausible,
    *,
    annotations: Path | None = None,
    reference_date: dt.date | None,
    date_format: str | None = None,
    sample_date_format: str | None = None,
    sex_codes: Mapping[str, Sex] | None = None,
    today: dt.date | None = None,
) -> Cohort:
    """Read the table of a cohort.

    Args:
        folder: holds the table and one folder of pictures a patient.
        plausible: outside these ranges a patient is refused.
        annotations: the table, where it does not lie in the folder under its usual name.
        reference_date: ages are taken at SAMPLE_DATE, where there is none at this date; None refuses such patients.
        date_format: strptime format of all dates in the table.
        sample_date_format: the same for SAMPLE_DATE alone.
        sex_codes: what GENDER's codes mean, as `parse_sex_codes` gives them; None for the rule.
        today: a sample dated more than a day later is refused; default: today (UTC).

    Raises:
        UsageError: a date format gives no dates.
        CohortError: the folder or the table is missing or unreadable, or the table is ragged, lacks a column, has no
            row, or its dates, sexes or numbers are in doubt.
    """
    if date_format is not None:
        check_date_format(date_format)
    if sample_date_format is not None:
        check_date_format(sample_date_format, "--sample-date-format", births=False)
    path = annotations or folder / TABLE
    data = _read(folder, path)
    table = parse_table(data, path)
    rows = table.rows
    if sample_date_format is not None and "SAMPLE_DATE" not in table.columns:
        raise CohortError(f"{path}: has no column SAMPLE_DATE, but --sample-date-format is given. Correct one of them")
    columns = _date_columns(table, path, {"DOB": date_format, "SAMPLE_DATE": sample_date_format or date_format})
    ages = _ages(table, columns, reference_date, today or dt.datetime.now(dt.UTC).date())
    genders, lines = [row.cells["GENDER"] for row in rows], [row.line for row in rows]
    of_sexes, sex_reading = sexes(genders, lines, "GENDER", str(path), sex_codes)
    times = Counter(row.cells["ID"] for row in rows)
    without_row = _folders_without_row(folder, times)
    look_alikes = {_look(name): name for name in without_row}
    patients: dict[tuple[str, int], Patient] = {}
    for row, age, sex in zip(rows, ages, of_sexes, strict=True):
        patient_id = row.cells["ID"]
        # A patient that stands twice has one result: failed, at its first place. Rows without ID stay apart.
        key = (patient_id, 0 if patient_id else row.line)
        if key not in patients:
            patient = _patient(row, age, sex, times[patient_id], plausible)
            patients[key] = replace(patient, look_alike=look_alikes.get(_look(patient_id), ""))
    return Cohort(
        folder=folder,
        table=path,
        table_sha256=hashlib.sha256(data).hexdigest(),
        patients=tuple(patients.values()),
        has_sample_dates="SAMPLE_DATE" in table.columns,
        has_labels="LABEL" in table.columns,
        readings={name: column.reading for name, column in columns.items()} | {"GENDER": sex_reading},
        unproven=tuple(name for name, column in columns.items() if column.unproven),
        folders_without_row=without_row,
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


def _look(name: str) -> str:
    """What two names have in common that differ only in Unicode composition, case or blanks around them."""
    name = name[:LONGEST_NAME]
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def _date_columns(table: Table, path: Path, formats: Mapping[str, str | None]) -> dict[str, Column]:
    lines = [row.line for row in table.rows]
    return {
        column: parse_column(
            [row.cells[column] for row in table.rows],
            lines,
            column,
            str(path),
            formats[column],
            # A spreadsheet that parts cells by semicolons is no American one, so that month/day is not what is usual.
            proof_needed=table.delimiter == ";",
        )
        for column in ("DOB", "SAMPLE_DATE")
        if column in table.columns
    }


def _ages(
    table: Table, columns: Mapping[str, Column], reference_date: dt.date | None, today: dt.date
) -> list[float | Verdict]:
    """Each row's age in years, or why it has none."""
    none: list[dt.date | None] = [None] * len(table.rows)
    samples = columns["SAMPLE_DATE"].dates if "SAMPLE_DATE" in columns else none
    return [
        _age(row, birth, sample, reference_date, today)
        for row, birth, sample in zip(table.rows, columns["DOB"].dates, samples, strict=True)
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


def _patient(row: Row, age: float | Verdict, sex: Sex | None, times: int, plausible: Plausible) -> Patient:
    patient_id = row.cells["ID"]
    label = row.cells.get("LABEL", "")
    verdict = _bad_id(patient_id, row.line, times)
    clinical = verdict or _clinical(row, age, sex, plausible)
    if isinstance(clinical, Verdict):
        return Patient(patient_id, row.line, None, clinical, label)
    return Patient(patient_id, row.line, clinical, None, label)


def _bad_id(patient_id: str, line: int, times: int) -> Verdict | None:
    if not patient_id:
        return Verdict.of(Reason.ID_MISSING, line=line)
    if patient_id in (".", "..") or not patient_id.isprintable() or "/" in patient_id or "\\" in patient_id:
        return Verdict.of(Reason.ID_UNUSABLE, line=line)
    if times > 1:
        return Verdict.of(Reason.ID_DUPLICATE, times=times)
    return None


def _clinical(row: Row, age: float | Verdict, sex: Sex | None, plausible: Plausible) -> Clinical | Verdict:
    cells = row.cells
    if sex is None:
        return Verdict.of(Reason.SEX_MISSING, line=row.line)
    if not cells["LYMPH_COUNT"]:
        return Verdict.of(Reason.COUNT_MISSING, line=row.line)
    count = number(cells["LYMPH_COUNT"])
    if count is None:
        return Verdict.of(Reason.COUNT_UNREADABLE, line=row.line)
    if count <= 0 or count not in plausible.lymph_count:
        hint = "; it looks like cells per microlitre, 10^9/L is expected" if count > plausible.lymph_count.high else ""
        return Verdict.of(Reason.COUNT_IMPLAUSIBLE, line=row.line, hint=hint)
    if isinstance(age, Verdict):
        return age
    if age not in plausible.age_years:
        return Verdict.of(Reason.AGE_IMPLAUSIBLE, line=row.line)
    return Clinical(female=sex == "female", lymph_count=count, age_years=age)
