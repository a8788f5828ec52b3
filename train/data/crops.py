"""Decodes a labelled cohort once, into a memory-mapped cache that training reads.

RUN/crops/ holds crops.npy (N, 112, 112, 3) uint8, images.csv, patients.csv, rejected.csv, cohort.json and a lock. It
holds patients' data: a run folder stays where the cohort may stay.

crops.npy is written as a file and mapped once it is whole: on a full disk a write raises an error, where writing to a
map ends the process.
"""

import contextlib
import datetime as dt
import errno
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from infer.cohort.patient import Cohort, Patient
from infer.cohort.patients import read_cohort
from infer.cohort.sexes import parse_sex_codes
from infer.errors import CohortError, LymphoError, UsageError
from infer.pictures.compression import jpeg_quality
from infer.pictures.decode import RejectedImage, decode_crop
from train.core.files import locked, write_text, written_whole
from train.data.bags import CROP_SIZE, Bags, load_crops
from train.data.labelled import PLAUSIBLE, Job, age_rule, labelled_patients, list_pictures
from train.data.segmentation import keep_cell
from train.data.source import check_source, line_of, read_content

LOG = logging.getLogger("lympho")

CROP_BYTES = CROP_SIZE * CROP_SIZE * 3
TABLE_BYTES = 256  # of a picture in the tables beside the crops, at most; with long names it is more
FILES = ("crops.npy", "images.csv", "rejected.csv", "patients.csv", "cohort.json")  # the last one written last
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Of a file system that cannot set space aside, sync or lock a file: the crops are right without, only less is noticed.
UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENOLCK})


class CropsError(LymphoError):
    """The crops cannot be written."""


def cache_crops(
    patients: Path,
    run: Path,
    reference_date: dt.date | None,
    date_format: str | None,
    segment: bool = False,
    *,
    sample_date_format: str | None = None,
    sex_codes: str | None = None,
    picture_size: tuple[int, int] | None = None,
    pixel_size: float | None = None,
) -> Bags:
    """Decode a cohort into the run folder, or take what an earlier call left there.

    Args:
        segment: whether to wipe out what surrounds each picture's lymphocyte.
        sample_date_format: of SAMPLE_DATE, if not date_format.
        sex_codes: what GENDER's codes mean, as `parse_sex_codes` takes it.
        picture_size: the analyser's, width and height in pixels, where the cohort holds only the pictures' centres; the
            bundle says of pictures of another size that they are unusual. Default: that of the files.
        pixel_size: micrometres that a pixel of the pictures covers. Only recorded: the bundle states it, and scoring
            rescales another camera's pictures to it. Default: not known.

    Raises:
        CohortError: the table or a labelled patient cannot be used; every such patient is named.
        UsageError: no date to take ages at, an impossible pixel size, or the run folder was made from other data or
            another date, or with pictures segmented the other way.
        CropsError: the disk is full, or the run folder cannot be written.
    """
    if pixel_size is not None and not 0 < pixel_size < math.inf:
        raise UsageError("--pixel-size: must be a number above 0, in micrometres")
    if run.resolve().is_relative_to(patients.resolve()):
        raise UsageError(f"{run}: lies inside the cohort, which is never written to. Choose another run folder")
    cohort = read_cohort(
        patients,
        PLAUSIBLE,
        reference_date=reference_date,
        date_format=date_format,
        sample_date_format=sample_date_format,
        sex_codes=parse_sex_codes(sex_codes) if sex_codes is not None else None,
    )
    if reference_date is None and not cohort.has_sample_dates:
        raise UsageError(
            f"{cohort.table}: has no SAMPLE_DATE, so ages need --reference-date (the day they are taken at, as "
            "2019-07-01)"
        )
    labelled = labelled_patients(cohort)
    jobs = list_pictures(cohort, labelled)
    facts = {
        "table_sha256": cohort.table_sha256,
        "reference_date": age_rule(cohort, reference_date),
        "date_format": date_format or "",
        "sample_date_format": sample_date_format or "",
        "sex_codes": sex_codes or "",
        "picture_size": "{} x {}".format(*picture_size) if picture_size else "",
        "pixel_size": str(pixel_size) if pixel_size is not None else "",
        "segmented": "yes" if segment else "no",
    }
    return _cached(cohort, labelled, jobs, run, facts)


def _cached(cohort: Cohort, labelled: list[Patient], jobs: list[Job], run: Path, facts: dict[str, str]) -> Bags:
    if not (run / "crops" / "cohort.json").exists():
        try:
            written = _write(cohort, labelled, jobs, run / "crops", facts)
        except OSError as error:
            raise _cannot_write(run / "crops", len(jobs), error) from error
        if written:
            return load_crops(run)
    bags = load_crops(run)
    check_source(run, bags.facts, facts, cohort, jobs)
    return bags


def _write(cohort: Cohort, patients: list[Patient], jobs: list[Job], folder: Path, facts: dict[str, str]) -> bool:
    """Write all of the files or none. False: another call has written them in the meantime."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if (folder / "cohort.json").exists():
            return False
        try:
            told, sizes = _decode_all(cohort, patients, jobs, folder, segment=facts["segmented"] == "yes")
            of_pictures = {"pictures_sha256": told, "pictures_compared_by": "content", "picture_sizes": sizes}
            text = json.dumps(facts | of_pictures, indent=1)
            write_text(folder / "cohort.json", text)  # last: its presence says that the rest is whole
        except BaseException:
            for name in FILES:
                with contextlib.suppress(OSError):  # it must not hide what went wrong
                    (folder / name).unlink(missing_ok=True)
            raise
    return True


@contextlib.contextmanager
def _if_supported() -> Iterator[None]:
    """Continue where this file system does not support the operation."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _cannot_write(folder: Path, pictures: int, error: OSError) -> CropsError:
    if error.errno not in FULL:
        return CropsError(
            f"{error.filename or folder}: cannot be written ({error.strerror}). Choose another run folder"
        )
    disk = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    needed, free = pictures * (CROP_BYTES + TABLE_BYTES) + 2**16, shutil.disk_usage(disk).free
    return CropsError(
        f"{folder}: no room for the crops of {pictures} pictures ({error.strerror}). About {needed:,} bytes are "
        f"needed, {free:,} are free. Make room there, or choose a run folder on another disk"
    )


def _decode_all(
    cohort: Cohort, patients: list[Patient], jobs: list[Job], folder: Path, *, segment: bool
) -> tuple[str, str]:
    """Write crops and tables.

    Returns:
        The digest of the decoded bytes, as in `train.data.source`, and the pictures' sizes: smallest and largest width,
        smallest and largest height.
    """
    root = cohort.folder.resolve()

    def decode(job: Job) -> tuple[str, npt.NDArray[np.uint8] | RejectedImage, tuple[int, int], float | None]:
        told, data = read_content(cohort.folder, root, job)
        if isinstance(data, RejectedImage):
            return told, data, (0, 0), None
        try:
            crop, size = decode_crop(data, CROP_SIZE)
        except RejectedImage as error:
            return told, error, (0, 0), None
        return told, keep_cell(crop) if segment else crop, size, jpeg_quality(data)

    used: list[dict[str, str | float | None]] = []
    rejected: list[dict[str, str]] = []
    sizes: set[tuple[int, int]] = set()
    digest = hashlib.sha256()
    with written_whole(folder / "crops.npy") as part, part.open("wb") as file:
        with _if_supported():  # so that a disk that is too small is found out before anything is decoded
            os.posix_fallocate(file.fileno(), 0, len(jobs) * CROP_BYTES)
        _write_header(file, len(jobs))
        with ThreadPoolExecutor() as pool:
            for job, (told, crop, size, quality) in zip(jobs, pool.map(decode, jobs), strict=True):
                digest.update(line_of(job, told))
                row = {"patient_id": job[0].patient_id, "image": job[1]}
                if isinstance(crop, RejectedImage):
                    rejected.append(row | {"reason": str(crop)})
                else:
                    file.write(crop.tobytes())
                    used.append({**row, "jpeg_quality": quality})
                    sizes.add(size)
        file.truncate()  # frees the space reserved for rejected pictures
        file.seek(0)
        _write_header(file, len(used))
    columns = ["patient_id", "image"]
    pd.DataFrame(used, columns=[*columns, "jpeg_quality"]).to_csv(
        folder / "images.csv", index=False, errors="backslashreplace"
    )
    refused = pd.DataFrame(rejected, columns=[*columns, "reason"])
    refused.to_csv(folder / "rejected.csv", index=False, errors="backslashreplace")
    _write_patients(patients, pd.Series([row["patient_id"] for row in used]), folder)
    LOG.info("crops: %d pictures of %d patients, %d rejected", len(used), len(patients), len(rejected))
    ends = [end(side) for side in zip(*sizes, strict=True) for end in (min, max)]
    return digest.hexdigest(), " ".join(map(str, ends))


def _write_header(file: BinaryIO, pictures: int) -> None:
    """The header of an .npy file. NumPy makes it of one length for any number, so that it can be written over."""
    shape = (pictures, CROP_SIZE, CROP_SIZE, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _write_patients(patients: list[Patient], image_owner: "pd.Series[str]", folder: Path) -> None:
    counts = image_owner.value_counts()
    empty = [patient.patient_id for patient in patients if patient.patient_id not in counts]
    if empty:
        raise CohortError(f"no usable picture: {', '.join(empty)}. Set their LABEL to -1 to leave them out")
    rows = []
    for patient in patients:
        if patient.clinical is None:  # excluded by labelled_patients
            raise CohortError(f"{patient.patient_id}: has no clinical values")
        sex, count, age = patient.clinical.female, patient.clinical.lymph_count, patient.clinical.age_years
        rows.append(
            {
                "patient_id": patient.patient_id,
                "label": int(patient.label),
                "sex": int(sex),
                "lymph_count": count,
                "age_years": age,
                "images": int(counts[patient.patient_id]),
            }
        )
    pd.DataFrame(rows).to_csv(folder / "patients.csv", index=False)
