"""Log messages about patients and the end of a run. They contain IDs, never a patient's values."""

import logging
from collections.abc import Iterable, Sequence

from infer.bundle.manifest import Drift
from infer.cohort.patient import Cohort
from infer.errors import EXIT_MEANING
from infer.output.summary import Summary
from infer.pictures.duplicates import in_words
from infer.scoring.result import PatientResult

LOG = logging.getLogger("lympho")
MOST_DUPLICATES = 20  # log lines


def warn_of_dates(cohort: Cohort) -> None:
    """Log the columns whose dates could also be read in the other order."""
    for column in cohort.unproven:
        LOG.warning(
            "%s, column %s: read %s: no date proves this order. If it is wrong, use --date-format",
            cohort.table,
            column,
            cohort.readings[column],
        )


def warn_of_patient(result: PatientResult, drift: Drift) -> None:
    """Log why a patient has no probability, and what is unusual about its files."""
    if result.code:
        # An ID that cannot be a folder name may contain a line end, and could then imitate a log line.
        LOG.warning("%s %s (%s)", _printable(result.patient_id), result.status, result.code)
    if result.rejected and not result.code:
        listed = ", ".join(f"{code} {number}" for code, number in result.image_reasons.most_common())
        LOG.info("%s: %d of %d pictures rejected (%s)", result.patient_id, result.rejected, len(result.images), listed)
    if result.scores and result.unusual_pictures:
        LOG.warning(
            "%s: unlike the training patients. predictions.csv says in what: look at the pictures before the number",
            result.patient_id,
        )
    if result.unusual_sizes:
        listed = ", ".join(f"{count} of {size}" for size, count in result.unusual_sizes.items())
        LOG.warning(
            "%s: pictures of another size than in training (%s): %s. If a pixel covers more or less of the slide than "
            "in training (another magnification), the probability is wrong, unless --pixel-size made up for it",
            result.patient_id,
            drift.sizes,
            listed,
        )
    if result.pictures_below:
        # The names must not get into the log: they may contain patients' names.
        LOG.warning(
            "%s: pictures in subfolders (%d) were ignored; run.json names the subfolders",
            result.patient_id,
            len(result.pictures_below),
        )


def tell_drift(said: Iterable[tuple[str, bool]]) -> None:
    """Log each sentence, as a warning if it tells of drift."""
    for sentence, changed in said:
        LOG.log(logging.WARNING if changed else logging.INFO, "%s", sentence)


def tell_end(summary: Summary, code: int, reasons: Sequence[str] = (), *, dry: bool = False) -> None:
    """Log duplicate pictures, counts and the exit code.

    Args:
        reasons: why the code is 3.
        dry: nothing was scored or written.
    """
    duplicates = list(summary.duplicates.found().items())
    for patients, pictures in duplicates[:MOST_DUPLICATES]:
        LOG.warning("%s", in_words(patients, pictures))
    if len(duplicates) > MOST_DUPLICATES:
        LOG.warning("%d more messages of this kind; run.json lists all", len(duplicates) - MOST_DUPLICATES)
    if summary.unlike:
        found = ", ".join(f"{name}: {patients}" for name, patients in summary.unusual_measures().items())
        LOG.warning(
            "patients unlike the training patients: %d%s. If they are many, find out what changed: microscope, camera, "
            "stain, export of the pictures",
            summary.unlike,
            f" ({found})" if found else "",
        )
    if summary.disagreeing:
        LOG.info("patients decided refer because their members disagree too much: %d", summary.disagreeing)
    counts = ", ".join(f"{summary.patients[status]} {status}" for status in ("scored", "refused", "failed"))
    why = "; ".join(reasons) or EXIT_MEANING[code]
    if dry:
        LOG.info(
            "dry run: nothing was scored or written. A run would end with %s, and exit code %d: %s", counts, code, why
        )
    else:
        LOG.info("%s; once all is written, exit code %d: %s", counts, code, why)


def tell_stopped(kept: int, patients: int) -> None:
    """Log that the run ends before its end, and that nothing is lost."""
    LOG.warning(
        "stopped before the end; %d of %d patients are kept in OUT. The same command goes on from there", kept, patients
    )


def _printable(patient_id: str) -> str:
    return patient_id if patient_id.isprintable() else ascii(patient_id)
