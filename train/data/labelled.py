"""Which patients and pictures of a labelled cohort are trained on."""

import datetime as dt
import logging
from collections import Counter
from pathlib import Path

from infer.cohort.patient import Cohort, Patient
from infer.cohort.plausible import Plausible, Range
from infer.errors import CohortError
from infer.pictures.decode import leaves
from infer.pictures.listing import Listing, list_images
from train.data.demands import problem_of_classes, problem_of_labels, problem_of_pictures

Job = tuple[Patient, str]  # a picture by its patient and file name
LOG = logging.getLogger("lympho")

PLAUSIBLE = Plausible(age_years=Range(0.0, 120.0), lymph_count=Range(0.0, 1000.0), minimum_images=10)


def labelled_patients(cohort: Cohort) -> list[Patient]:
    """The patients with label 0 or 1, in order.

    Raises:
        CohortError: there are no labels, they are words, rows cannot be used, or a class has too few patients.
    """
    if not cohort.has_labels:
        raise CohortError(f"{cohort.table}: has no column LABEL (1 malignant, 0 reactive, -1 unknown)")
    if words := problem_of_labels([patient.label for patient in cohort.patients]):
        raise CohortError(f"{cohort.table}: {words}")
    problems = []
    labelled = []
    for patient in cohort.patients:
        if patient.verdict and patient.verdict.reason.startswith("id_duplicate"):
            problems.append(f"line {patient.line} ({patient.patient_id}): {patient.verdict.reason}")
        elif patient.label not in ("0", "1", "-1"):
            problems.append(f"line {patient.line} ({patient.patient_id}): LABEL is none of 1, 0, -1")
        elif patient.label != "-1" and patient.verdict:
            problems.append(f"line {patient.line} ({patient.patient_id}): {patient.verdict.reason}")
        elif patient.label != "-1":
            labelled.append(patient)
    if problems:
        listed = "\n  ".join(problems)
        raise CohortError(f"{cohort.table}: correct these rows, or set LABEL to -1 to leave them out:\n  {listed}")
    malignant = sum(patient.label == "1" for patient in labelled)
    if missing := problem_of_classes(malignant, len(labelled) - malignant):
        raise CohortError(f"{cohort.table}: {missing}")
    return labelled


def age_rule(cohort: Cohort, reference_date: dt.date | None) -> str:
    """At which date ages were taken, in words."""
    if reference_date is None:
        return "SAMPLE_DATE"
    return f"SAMPLE_DATE, else {reference_date}" if cohort.has_sample_dates else reference_date.isoformat()


def list_pictures(cohort: Cohort, patients: list[Patient]) -> list[Job]:
    """All pictures of some patients.

    Raises:
        CohortError: there is none, or hardly one a patient; or a patient's folder cannot be read or is a link out of
            the cohort.
    """
    root = cohort.folder.resolve()
    jobs = [(patient, name) for patient in patients for name in _pictures(cohort.folder, root, patient)]
    if not jobs:
        raise CohortError(f"{cohort.folder}: no labelled patient has a picture")
    numbers = Counter(patient.patient_id for patient, _ in jobs)
    if few := problem_of_pictures([numbers[patient.patient_id] for patient in patients]):
        raise CohortError(f"{cohort.folder}: {few}")
    fewer = [patient.patient_id for patient in patients if numbers[patient.patient_id] < PLAUSIBLE.minimum_images]
    if fewer:
        least = PLAUSIBLE.minimum_images
        LOG.warning("%d patients have fewer than %d pictures; scoring refuses such patients", len(fewer), least)
    return jobs


def _pictures(folder: Path, root: Path, patient: Patient) -> tuple[str, ...]:
    path = folder / patient.patient_id
    try:
        if leaves(path, root):
            raise CohortError(f"{path}: links out of the cohort. Copy the patient's folder into it")
        return _warn_of_subfolders(path, list_images(path)).names
    except OSError as error:
        raise CohortError(f"{path}: a labelled patient's folder cannot be read ({error.strerror})") from error


def _warn_of_subfolders(folder: Path, listing: Listing) -> Listing:
    if listing.below:
        names = ", ".join(ascii(name) for name in listing.below)
        LOG.warning("%s: pictures in folders below it are not used: %s", folder, names)
    return listing
