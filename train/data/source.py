"""Whether a run folder's crops are still those of the cohort: by the content of its pictures."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infer.cohort.patient import Cohort
from infer.errors import CohortError, UsageError
from infer.pictures.decode import RejectedImage, try_picture
from train.data.labelled import Job


def check_source(run: Path, held: dict[str, str], facts: dict[str, str], cohort: Cohort, jobs: list[Job]) -> None:
    """Refuse a run folder whose crops are not those of this call.

    Raises:
        UsageError: they are not, or that cannot be found out.
    """
    if held["segmented"] != facts["segmented"]:
        pictures = "segmented" if held["segmented"] == "yes" else "whole"
        raise UsageError(f"{run}: holds {pictures} pictures, see --segment. Choose another run folder")
    same = all(held.get(name, "") == value for name, value in facts.items())  # "": from before there was this option
    if same and "pictures_compared_by" not in held:
        if held["pictures_sha256"] == _times_digest(cohort.folder, jobs):
            return
        raise UsageError(
            f"{run}: an earlier version of lympho made it and kept only names, sizes and times of the pictures. These "
            f"have changed, so it cannot be known whether the pictures have. Copy the pictures with their times "
            f"(cp -a, rsync -a), or choose another run folder"
        )
    if not (same and held["pictures_sha256"] == _content_digest(cohort.folder, jobs)):
        raise UsageError(
            f"{run}: was made from another table, other pictures or dates, or with other options. Choose another "
            f"run folder"
        )


def _content_digest(folder: Path, jobs: list[Job]) -> str:
    """Changes whenever a picture is added, taken away or holds other bytes, wherever the folder lies."""
    root = folder.resolve()
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:  # on a share, most of it is waiting
        for job, told in zip(jobs, pool.map(lambda job: read_content(folder, root, job)[0], jobs), strict=True):
            digest.update(line_of(job, told))
    return digest.hexdigest()


def _times_digest(folder: Path, jobs: list[Job]) -> str:
    """What earlier versions wrote down: SHA-256 over names, sizes and times."""
    digest = hashlib.sha256()
    for job in jobs:
        status = (folder / job[0].patient_id / job[1]).lstat()
        digest.update(line_of(job, f"{status.st_size} {status.st_mtime_ns}"))
    return digest.hexdigest()


def line_of(job: Job, told: str) -> bytes:
    """What a picture adds to the digest of all: its place in the cohort and its content."""
    patient, name = job
    return f"{patient.patient_id}/{name} {told}\n".encode(errors="surrogateescape")


def read_content(folder: Path, root: Path, job: Job) -> tuple[str, bytes | RejectedImage]:
    """The SHA-256 of a picture's bytes, and the bytes; or why it cannot be read, as text and as an error.

    Raises:
        CohortError: reading broke off.
    """
    patient, name = job
    path = folder / patient.patient_id / name
    told, data = try_picture(path, root)
    if isinstance(data, OSError):
        raise CohortError(f"{path}: could not be read to its end ({data.strerror}). Try again") from data
    return told, data
