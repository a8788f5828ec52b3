"""Which patients and pictures of a labelled cohort are trained on."""

import datetime as dt
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from infer.cohort.patient import Cohort, Patient
from infer.cohort.plausible import Plausible, Range
from infer.errors import CohortError
from infer.pictures.decode import leaves
from infer.pictures.listing import Listing, list_images
from train.data.demands import problem_of_classes, problem_of_labels, problem_of_pictures

Job = tuple[Patient, str]  # a picture by its patient and file name
LOG = logging.getLogger("lympho")

LONGEST_CENTRE = 40  # characters
PLAUSIBLE = Plausible(age_years=Range(0.0, 120.0), lymph_count=Range(0.0, 1000.0), minimum_images=10)


def labelled_patients(cohort: Cohort) -> list[Patient]:
    """The patients with label 0 or 1, in order.

    Raises:
        CohortError: there are no labels, they are words, rows cannot be used, or a class has too few patients.
    """
    labelled, problems = sorted_rows(cohort)
    if words := problem_of_labels([patient.label for patient in cohort.patients]):
        raise CohortError(f"{cohort.table}: {words}")
    if problems:
        listed = "\n  ".join(problems)
        raise CohortError(f"{cohort.table}: correct these rows, or set LABEL to -1 to leave them out:\n  {listed}")
    for problem in too_few(cohort, labelled):
        raise CohortError(problem)
    return labelled


def sorted_rows(cohort: Cohort) -> tuple[list[Patient], list[str]]:
    """The usable patients with label 0 or 1, in order; and what is wrong with each row that must be corrected.

    Raises:
        CohortError: there are no labels.
    """
    if not cohort.has_labels:
        raise CohortError(f"{cohort.table}: has no column LABEL (1 malignant, 0 reactive, -1 unknown)")
    labelled, problems = [], []
    for patient in cohort.patients:
        if patient.verdict and patient.verdict.reason.startswith("id_duplicate"):
            problems.append(f"line {patient.line} ({patient.patient_id}): {patient.verdict.reason}")
        elif patient.label not in ("0", "1", "-1"):
            problems.append(f"line {patient.line} ({patient.patient_id}): LABEL is none of 1, 0, -1")
        elif patient.label != "-1" and patient.verdict:
            problems.append(f"line {patient.line} ({patient.patient_id}): {patient.verdict.reason}")
        elif patient.label != "-1":
            labelled.append(patient)
    return labelled, problems


def too_few(cohort: Cohort, labelled: Sequence[Patient]) -> list[str]:
    """A class that is missing, or has too few patients."""
    malignant = sum(patient.label == "1" for patient in labelled)
    missing = problem_of_classes(malignant, len(labelled) - malignant)
    return [f"{cohort.table}: {missing}"] if missing else []


def missing_date(cohort: Cohort, reference_date: dt.date | None) -> str | None:
    """What to say where no date is known to take ages at; None if one is."""
    if reference_date is not None or cohort.has_sample_dates:
        return None
    return (
        f"{cohort.table}: has no SAMPLE_DATE, so ages need --reference-date (the day they are taken at, as 2019-07-01)"
    )


def centres_of(cohort: Cohort, patients: list[Patient]) -> tuple[str, ...] | None:
    """The centre of each of these patients; None if the column CENTRE is missing or empty.

    Raises:
        CohortError: only some of them have a centre, a name cannot stand in a table, or two differ only in their case.
    """
    names = tuple(patient.centre for patient in patients)
    if not any(names):
        return None
    for patient in patients:
        if not patient.centre:
            problem = "CENTRE is empty, but other patients have one. Name a centre for each, or take the column out"
        elif not patient.centre.isprintable() or "|" in patient.centre or len(patient.centre) > LONGEST_CENTRE:
            problem = f"CENTRE must have 1 to {LONGEST_CENTRE} printable characters and no |. Use a shorter name"
        else:
            continue
        raise CohortError(f"{cohort.table}, line {patient.line} ({patient.patient_id}): {problem}")
    spelt: dict[str, Patient] = {}
    for patient in patients:
        first = spelt.setdefault(patient.centre.casefold(), patient)
        if first.centre != patient.centre:
            raise CohortError(
                f"{cohort.table}: CENTRE in lines {first.line} and {patient.line} differ only in upper and lower case: "
                "write each centre in one way"
            )
    return names


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
    jobs = [(patient, name) for patient in patients for name in _warned(cohort, root, patient).names]
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


def list_folder(cohort: Cohort, root: Path, patient: Patient) -> Listing:
    """What is in a patient's folder.

    Args:
        root: the cohort's resolved folder.

    Raises:
        CohortError: it cannot be read, or is a link out of the cohort.
    """
    path = cohort.folder / patient.patient_id
    try:
        if leaves(path, root):
            raise CohortError(f"{path}: links out of the cohort. Copy the patient's folder into it")
        return list_images(path)
    except OSError as error:
        raise CohortError(f"{path}: a labelled patient's folder cannot be read ({error.strerror})") from error


def no_usable_picture(patient_ids: Iterable[str]) -> str:
    """What to say of patients without a picture that can be used."""
    return f"no usable picture: {', '.join(patient_ids)}. Set their LABEL to -1 to leave them out"


def _warned(cohort: Cohort, root: Path, patient: Patient) -> Listing:
    listing = list_folder(cohort, root, patient)
    if listing.below:
        names = ", ".join(ascii(name) for name in listing.below)
        LOG.warning("%s: pictures in folders below it are not used: %s", cohort.folder / patient.patient_id, names)
    return listing
