"""What the table and the folders say before a picture is opened.

The rules are those of training itself (train/data/labelled.py); here all of their refusals are gathered.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infer.cohort.patient import Cohort, Patient
from infer.cohort.patients import read_cohort
from infer.cohort.sexes import parse_sex_codes
from infer.errors import CohortError, UsageError
from train.checking.centres import findings_of_centres
from train.checking.finding import Finding, correct, counted, fine, look, named
from train.data.demands import problem_of_labels
from train.data.labelled import PLAUSIBLE, Job, list_folder, missing_date, no_usable_picture, sorted_rows, too_few

LEAST_LYMPHOCYTOSIS = 4.0  # 10^9/L: by the usual definition an adult with fewer has none
ADULT = 18.0  # years
LEAST_SHARE = 0.1  # of the rarer class, for its figures to mean something
COMFORTABLE = 20  # patients of the rarer class: fewer leave the ensemble's thresholds to single patients


@dataclass(frozen=True)
class TableOptions:
    """Which patients, and how their table is read; the options of all training commands."""

    patients: Path
    reference_date: dt.date | None = None
    date_format: str | None = None
    sample_date_format: str | None = None
    sex_codes: str | None = None
    picture_size: tuple[int, int] | None = None  # of the analyser's original pictures, if these are their centres


@dataclass(frozen=True)
class Contents:
    """What could be read of the table and the folders."""

    findings: list[Finding]
    cohort: Cohort | None = None  # None: the table cannot be read
    labelled: tuple[Patient, ...] = ()  # usable, with a label 0 or 1, and with a picture
    jobs: tuple[Job, ...] = ()  # their pictures, patient after patient


def read_contents(asked: TableOptions) -> Contents:
    """Read the table and list the folders; never raises for what a hospital can correct."""
    try:
        cohort, findings = _read(asked)
        labelled, problems = sorted_rows(cohort)
    except (CohortError, UsageError) as error:
        return Contents([correct("table", str(error), "Correct the table or the option, then check again.")])
    if words := problem_of_labels([patient.label for patient in cohort.patients]):
        findings.append(correct("labels", f"{cohort.table}: {words}", ""))
    if problems:
        what = f"{cohort.table}: {counted(len(problems), 'row')} cannot be used"
        findings.append(correct("rows", what, "Correct these rows, or set LABEL to -1 to leave them out.", problems))
    findings += [*_of_classes(cohort, labelled), *findings_of_centres(cohort, labelled)]
    usable, jobs, of_folders = _listed(cohort, labelled)
    findings += [*_of_values(labelled), *_of_cohort(cohort), *of_folders]
    return Contents(findings, cohort, tuple(usable), tuple(jobs))


def _read(asked: TableOptions) -> tuple[Cohort, list[Finding]]:
    codes = parse_sex_codes(asked.sex_codes) if asked.sex_codes is not None else None

    def read(date: dt.date | None) -> Cohort:
        return read_cohort(
            asked.patients,
            PLAUSIBLE,
            reference_date=date,
            date_format=asked.date_format,
            sample_date_format=asked.sample_date_format,
            sex_codes=codes,
            with_centres=True,
        )

    cohort = read(asked.reference_date)
    problem = missing_date(cohort, asked.reference_date)
    if problem is None:
        return cohort, []
    # Read as of today, so that the other rows' problems are found too.
    return read(dt.datetime.now(dt.UTC).date()), [correct("reference date", problem, "")]


def _of_classes(cohort: Cohort, labelled: list[Patient]) -> list[Finding]:
    malignant = sum(patient.label == "1" for patient in labelled)
    reactive = len(labelled) - malignant
    unknown = sum(patient.label == "-1" for patient in cohort.patients)
    found = [correct("classes", problem, "") for problem in too_few(cohort, labelled)]
    if unknown:
        found.append(fine("classes", f"{counted(unknown, 'patient')} with LABEL -1 will not be used"))
    if not labelled:
        return found
    what = f"{len(labelled)} patients: {malignant} malignant ({malignant / len(labelled):.0%}), {reactive} reactive"
    fewest = min(malignant, reactive)
    if fewest < LEAST_SHARE * len(labelled) or fewest < COMFORTABLE:
        todo = "Add patients of the rarer class if you can; expect wide intervals."
        found.append(look("classes", f"{what}; figures will rest on the {fewest} of the rarer class", todo))
    else:
        found.append(fine("classes", what))
    return found


def _of_values(labelled: list[Patient]) -> list[Finding]:
    values = [(patient, patient.clinical) for patient in labelled if patient.clinical]
    if not values:
        return []
    ages = np.array([clinical.age_years for _, clinical in values])
    counts = np.array([clinical.lymph_count for _, clinical in values])
    found = [fine("values", f"Ages {_spread(ages, '.0f')} years; counts {_spread(counts, '.1f')} x 10^9/L")]
    low = [patient.patient_id for patient, clinical in values if clinical.lymph_count < LEAST_LYMPHOCYTOSIS]
    young = [patient.patient_id for patient, clinical in values if clinical.age_years < ADULT]
    if low:
        what = f"{counted(len(low), 'patient')} with a count below {LEAST_LYMPHOCYTOSIS:g} x 10^9/L: no lymphocytosis"
        found.append(look("values", what, "See that the unit is 10^9/L, and whether they belong here.", low))
    if young:
        what = f"{counted(len(young), 'patient')} younger than {ADULT:g} years"
        found.append(look("values", what, "See that the birth dates are right; children's counts are higher.", young))
    return found


def _spread(values: np.ndarray, form: str) -> str:
    low, middle, high = (format(float(np.quantile(values, level)), form) for level in (0, 0.5, 1))
    return f"{low} to {high}, median {middle}"


def _of_cohort(cohort: Cohort) -> list[Finding]:
    found = []
    if cohort.unproven:
        what = f"{cohort.table}: no date in {' or '.join(cohort.unproven)} shows whether the day or the month is first"
        found.append(look("dates", what, "Give --date-format, for example --date-format %d/%m/%Y."))
    if names := cohort.folders_without_row:
        what = f"{counted(len(names), 'folder')} without a row in the table: {named(names)}"
        found.append(look("folders", what, "Add their rows, or move them away: nobody looks into them.", names))
    return found


def _listed(cohort: Cohort, labelled: list[Patient]) -> tuple[list[Patient], list[Job], list[Finding]]:
    """Patients with a picture, the pictures, and what is wrong with folders."""
    root = cohort.folder.resolve()
    listed, found, unreadable, below = [], [], [], []
    for patient in labelled:
        try:
            listing = list_folder(cohort, root, patient)
        except CohortError as error:
            alike = f". A folder of nearly the same name: {patient.look_alike!a}" if patient.look_alike else ""
            unreadable.append(f"line {patient.line}: {error}{alike}")
            continue
        listed.append((patient, listing.names))
        if listing.below:
            below.append(f"{patient.patient_id}: {', '.join(map(ascii, listing.below))}")
    if unreadable:
        what = f"{counted(len(unreadable), 'labelled patient')} without a folder that can be read"
        found.append(correct("folders", what, "Add the folders, or set these patients' LABEL to -1.", unreadable))
    if empty := [patient.patient_id for patient, names in listed if not names]:
        todo = "Add pictures, or set these patients' LABEL to -1."
        found.append(correct("pictures", no_usable_picture([named(empty)]), todo, empty))
    if below:
        what = f"{counted(len(below), 'patient')} with pictures in folders below their own, which are not used"
        found.append(look("folders", what, "Move them into the patient's folder if they are the patient's.", below))
    usable = [patient for patient, names in listed if names]
    return usable, [(patient, name) for patient, names in listed for name in names], found


def patient_of(jobs: tuple[Job, ...], labelled: tuple[Patient, ...]) -> np.ndarray:
    """(N,) index of each picture's patient."""
    at = {patient.patient_id: index for index, patient in enumerate(labelled)}
    return np.array([at[patient.patient_id] for patient, _ in jobs], np.int64)
