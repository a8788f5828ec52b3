"""A labelled cohort, scored by a bundle through `infer` itself, as the nightly run would have scored it."""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infer.bundle.load import Bundle
from infer.bundle.manifest import Manifest
from infer.cohort.patient import Cohort
from infer.cohort.patients import read_cohort
from infer.cohort.sexes import parse_sex_codes
from infer.errors import CohortError, UsageError
from infer.options import Options
from infer.output.kept import KEPT, read_results
from infer.pictures.decode import RejectedImage, decode_crop, read_picture
from infer.pictures.listing import list_images
from infer.run import run
from train.core.arrays import Booleans, Floats, Labels
from train.data.labelled import centres_of
from train.data.seen import as_text, digest, unpacked

SCORED = "scored"  # folder
KNOWN_LABELS = {"0": 0, "1": 1}


@dataclass(frozen=True)
class NotScored:
    """A labelled patient without a probability."""

    patient_id: str
    label: int
    status: str  # refused, failed
    code: str  # of the reason


@dataclass(frozen=True)
class Scored:
    """The labelled patients that have a probability; arrays are (P,) in the table's order."""

    patient_ids: list[str]
    labels: Labels  # 1 malignant, 0 reactive
    probability: Floats  # of malignant
    held_up: Booleans  # unlike the training patients
    disagree: Booleans  # members disagree above the bundle's bound
    clinical: Floats  # (P, 3) sex (F = 1), count in 10^9/L, age in years
    pictures: Floats  # used
    not_scored: tuple[NotScored, ...]
    without_label: int  # patients whose label is neither 0 nor 1
    same_table: bool  # the table is that of the patients whom the bundle was made on
    known: Booleans | None  # have a picture that the bundle was made on; None: the bundle does not tell
    seen: str  # digests of all their pictures (train.data.seen), salted as the bundle's
    table_sha256: str
    made_on: str = "trained on"  # or adapted to, too
    centres: tuple[str, ...] | None = None  # the hospital of each, where the table has a column CENTRE


def score_labelled(bundle: Bundle, options: Options) -> Scored:
    """Score a cohort into options.out/scored, and put labels beside results.

    Args:
        options: as for a run; `out` is the validation's folder. Patients unlike the training patients are scored.

    Raises:
        CohortError: the table has no labels, or no patient of either class has a probability.
        UsageError: ages need a reference date, without which they would change from day to day.
        LymphoError: as `infer.run.run`.
    """
    options = dataclasses.replace(options, out=options.out / SCORED, ood="warn")
    cohort = _labelled(bundle, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    run(options)
    pairs = list(zip(cohort.patients, read_results(options.out / KEPT, len(cohort.patients)), strict=True))
    labelled = [
        (patient, result, KNOWN_LABELS[patient.label]) for patient, result in pairs if patient.label in KNOWN_LABELS
    ]
    good = [(patient, result, label) for patient, result, label in labelled if result.scores]
    for label, meaning in ((1, "malignant"), (0, "reactive")):
        if not any(one == label for *_, one in good):
            raise CohortError(
                f"{cohort.table}: no {meaning} patient has a probability, so nothing can be said of how good it is. "
                f"Give patients of both classes (LABEL 1 and 0); {options.out} says why others were not scored"
            )
    digests = _digests(bundle.manifest, cohort.folder, [patient.patient_id for patient, *_ in good])
    return Scored(
        patient_ids=[patient.patient_id for patient, *_ in good],
        labels=np.array([label for *_, label in good]),
        probability=np.array([result.scores.probability for _, result, _ in good if result.scores]),
        held_up=np.array([bool(result.unusual) for _, result, _ in good if result.scores]),
        disagree=np.array([result.scores.disagree for _, result, _ in good if result.scores], np.bool_),
        clinical=np.array([patient.clinical.vector() for patient, *_ in good if patient.clinical], np.float64),
        pictures=np.array([float(result.used) for _, result, _ in good]),
        not_scored=tuple(
            NotScored(patient.patient_id, label, result.status, result.code)
            for patient, result, label in labelled
            if not result.scores
        ),
        without_label=len(pairs) - len(labelled),
        same_table=cohort.table_sha256 in _tables(bundle.manifest),
        known=_known(bundle.manifest, digests),
        seen=as_text(one for of_patient in digests for one in of_patient),
        table_sha256=cohort.table_sha256,
        centres=centres_of(cohort, [patient for patient, *_ in good]),
        made_on="trained on or adapted to" if bundle.manifest.adapted else "trained on",
    )


def _tables(manifest: Manifest) -> set[str]:
    """SHA-256 of the tables of all patients whom a bundle was made on."""
    return {manifest.provenance.table_sha256, *([manifest.adapted.table_sha256] if manifest.adapted else [])}


def _labelled(bundle: Bundle, options: Options) -> Cohort:
    cohort = read_cohort(
        options.patients,
        bundle.manifest.plausible,
        annotations=options.annotations,
        reference_date=options.reference_date,
        date_format=options.date_format,
        sample_date_format=options.sample_date_format,
        sex_codes=parse_sex_codes(options.sex_codes) if options.sex_codes is not None else None,
        with_centres=True,
    )
    if not cohort.has_labels:
        raise CohortError(f"{cohort.table}: has no column LABEL (1 malignant, 0 reactive, -1 unknown)")
    odd = [patient.line for patient in cohort.patients if patient.label not in ("0", "1", "-1")]
    if odd:
        lines = ", ".join(map(str, odd[:10])) + (f" and {len(odd) - 10} more" if len(odd) > 10 else "")
        raise CohortError(f"{cohort.table}: LABEL is none of 1, 0, -1 in line {lines}. Correct these rows")
    if options.reference_date is None and not cohort.has_sample_dates:
        raise UsageError(
            f"{cohort.table}: has no SAMPLE_DATE, so ages need --reference-date (the day they are taken at)"
        )
    return cohort


def _known(manifest: Manifest, digests: list[frozenset[bytes]]) -> Booleans | None:
    """Which patients have a picture that the bundle was trained on, or adapted to."""
    trained = unpacked(manifest.reference.seen)
    known = trained | (unpacked(manifest.adapted.seen) if manifest.adapted else frozenset())
    found = np.array([not known.isdisjoint(of_patient) for of_patient in digests], np.bool_)
    return found if trained or found.any() else None


def _digests(manifest: Manifest, folder: Path, patients: list[str]) -> list[frozenset[bytes]]:
    """The digests of each patient's pictures."""
    root, salt = folder.resolve(), manifest.provenance.table_sha256

    def of_patient(patient: str) -> frozenset[bytes]:
        return frozenset(digest(crop, salt) for crop in _crops(folder / patient, root, manifest.crop_size))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(of_patient, patients))


def _crops(folder: Path, root: Path, size: int) -> Iterator[np.ndarray]:
    for name in list_images(folder).names:
        try:
            yield decode_crop(read_picture(folder / name, root), size, checked=False)[0]
        except RejectedImage:
            continue
