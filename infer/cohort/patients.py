"""Reads a cohort's table: one patient per row, each with complete clinical values or with the verdict why not.

Format of the public lymphocytosis challenge: ID, GENDER, DOB, LYMPH_COUNT, for training LABEL, optionally SAMPLE_DATE
and AGE. Values never appear in messages that may reach a log; IDs, lines and columns do.
"""

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from infer.cohort.ages import ages_of, date_columns, sample_dates
from infer.cohort.dates import (
    check_date_format,
)
from infer.cohort.folders import folders_without_row_of, look_alike_key
from infer.cohort.patient import Cohort, Patient, Verdict
from infer.cohort.plausible import Plausible
from infer.cohort.row import patient_of_row
from infer.cohort.sexes import Sex, sexes
from infer.cohort.table import CENTRE, Row, parse_table
from infer.errors import CohortError

TABLE = "clinical_annotation.csv"


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
    with_centres: bool = False,
) -> Cohort:
    """Read the table of a cohort.

    Args:
        folder: contains the table and one folder of pictures per patient.
        plausible: patients outside these ranges are refused.
        annotations: the table, if it is not in the folder under its usual name.
        reference_date: date at which ages are taken for patients without SAMPLE_DATE; None refuses such patients.
        date_format: strptime format of all dates in the table.
        sample_date_format: the same, for SAMPLE_DATE only.
        sex_codes: meaning of the codes in GENDER, from `parse_sex_codes`; None to use the built-in rule.
        today: a sample dated more than a day later is refused; default: today (UTC).
        with_centres: whether to read the column CENTRE, if there is one; scoring ignores it.

    Raises:
        UsageError: a date format does not determine a date.
        CohortError: the folder or the table is missing or unreadable, or the table is ragged, lacks a column, has no
            row, or its dates, sexes or numbers are ambiguous.
    """
    if date_format is not None:
        check_date_format(date_format)
    if sample_date_format is not None:
        check_date_format(sample_date_format, "--sample-date-format", births=False)
    path = annotations or folder / TABLE
    data = _read(folder, path)
    table = parse_table(data, path, (CENTRE,) if with_centres else ())
    rows = table.rows
    if sample_date_format is not None and "SAMPLE_DATE" not in table.columns:
        raise CohortError(f"{path}: has no column SAMPLE_DATE, but --sample-date-format is given. Correct one of them")
    columns = date_columns(table, path, {"DOB": date_format, "SAMPLE_DATE": sample_date_format or date_format})
    ages = ages_of(table, columns, reference_date, today or dt.datetime.now(dt.UTC).date())
    samples = sample_dates(table, columns)
    genders, lines = [row.cells["GENDER"] for row in rows], [row.line for row in rows]
    of_sexes, sex_reading = sexes(genders, lines, "GENDER", str(path), sex_codes)
    times = Counter(row.cells["ID"] for row in rows)
    without_row = folders_without_row_of(folder, times)
    patients = _patients(rows, ages, samples, of_sexes, times, without_row, plausible)
    return Cohort(
        folder=folder,
        table=path,
        table_sha256=hashlib.sha256(data).hexdigest(),
        patients=patients,
        has_sample_dates="SAMPLE_DATE" in table.columns,
        has_labels="LABEL" in table.columns,
        readings={name: column.reading for name, column in columns.items()} | {"GENDER": sex_reading},
        unproven=tuple(name for name, column in columns.items() if column.unproven),
        folders_without_row=without_row,
        patients_in_table=len(patients),
    )


def _patients(
    rows: Sequence[Row],
    ages: Sequence[float | Verdict],
    samples: Sequence[str],
    of_sexes: Sequence[Sex | None],
    times: Mapping[str, int],
    without_row: Sequence[str],
    plausible: Plausible,
) -> tuple[Patient, ...]:
    look_alikes = {look_alike_key(name): name for name in without_row}
    patients: dict[tuple[str, int], Patient] = {}
    for row, age, sample, sex in zip(rows, ages, samples, of_sexes, strict=True):
        patient_id = row.cells["ID"]
        # A patient with two rows gets one result, failed, at the first row's position. Rows without ID stay separate.
        key = (patient_id, 0 if patient_id else row.line)
        if key not in patients:
            patient = patient_of_row(row, age, sample, sex, times[patient_id], plausible)
            patients[key] = replace(patient, look_alike=look_alikes.get(look_alike_key(patient_id), ""))
    return tuple(patients.values())


def _read(folder: Path, table: Path) -> bytes:
    try:
        if not folder.is_dir():
            raise CohortError(f"{folder}: no such folder of patients")
    except OSError as error:
        raise CohortError(f"{folder}: cannot be read ({error.strerror}). Name another folder") from error
    try:
        if table.exists() and not table.is_file():  # reading a pipe would block the nightly run
            raise CohortError(f"{table}: is not a regular file. Name the table with --annotations")
        return table.read_bytes()
    except OSError as error:
        raise CohortError(f"{table}: cannot be read ({error.strerror}). Name the table with --annotations") from error
