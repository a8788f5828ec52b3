"""Decodes a labelled cohort once into a memory-mapped cache, and hands it to training as bags.

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
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from infer.cohort.patients import Cohort, Patient, read_cohort
from infer.cohort.plausible import Plausible, Range
from infer.cohort.sexes import parse_sex_codes
from infer.errors import CohortError, LymphoError, UsageError
from infer.pictures.decode import RejectedImage, decode_crop, leaves, try_picture
from infer.pictures.listing import Listing, list_images
from train.core.files import held, write_text
from train.data.segmentation import keep_cell

LOG = logging.getLogger("lympho")

CROP_SIZE = 112  # pixels; the report's
CROP_BYTES = CROP_SIZE * CROP_SIZE * 3
TABLE_BYTES = 256  # of a picture in the tables beside the crops, at most; with long names it is more
PART = "crops.part.npy"
FILES = (PART, "crops.npy", "images.csv", "rejected.csv", "patients.csv", "cohort.json.part", "cohort.json")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Of a file system that cannot set space aside, sync or lock a file: the crops are right without, only less is noticed.
UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENOLCK})
Job = tuple[Patient, str]  # a picture by its patient and file name
PLAUSIBLE = Plausible(age_years=Range(0.0, 120.0), lymph_count=Range(0.0, 1000.0), minimum_images=10)


class CropsError(LymphoError):
    """The crops cannot be written."""


@dataclass(frozen=True)
class Bags:
    """All labelled patients and their pictures, patients in the annotation file's order."""

    crops: Tensor  # (N, 112, 112, 3) uint8, patient after patient, by name within a patient
    offsets: npt.NDArray[np.int64]  # (P + 1,) a patient's pictures are crops[offsets[p]:offsets[p + 1]]
    patient_ids: list[str]
    image_names: list[str]  # (N,)
    labels: npt.NDArray[np.int64]  # (P,) 1 malignant
    clinical: npt.NDArray[np.float32]  # (P, 3) sex (F = 1), count in 10^9/L, age in years
    # Where they come from: table_sha256, pictures_sha256, pictures_compared_by (content; not in run folders of earlier
    # versions, which compared names, sizes and times), reference_date, date_format, segmented (yes or no).
    facts: dict[str, str]

    def __len__(self) -> int:
        return len(self.patient_ids)

    def on(self, device: torch.device) -> "Bags":
        """With the pictures on a device: copied once, drawn and augmented there ever after."""
        return self if device.type == "cpu" else replace(self, crops=self.crops.to(device))

    def of(self, patients: npt.NDArray[np.int64]) -> "Bags":
        """Some patients alone, in the order given; their pictures are copied."""
        images = np.concatenate([np.arange(self.offsets[index], self.offsets[index + 1]) for index in patients])
        return replace(
            self,
            crops=self.crops[torch.from_numpy(images)],
            offsets=np.concatenate([[0], np.cumsum(np.diff(self.offsets)[patients])]).astype(np.int64),
            patient_ids=[self.patient_ids[index] for index in patients],
            image_names=[self.image_names[index] for index in images],
            labels=self.labels[patients],
            clinical=self.clinical[patients],
        )

    def patient_of_image(self) -> npt.NDArray[np.int64]:
        """(N,) index of each picture's patient."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def sample(
        self, patients: npt.NDArray[np.int64], images_per_patient: int, rng: np.random.Generator
    ) -> list[npt.NDArray[np.int64]]:
        """For each patient the indices of its pictures for an epoch: all (0), or that many at most, at random."""
        chosen = []
        for patient in patients:
            images = np.arange(self.offsets[patient], self.offsets[patient + 1])
            if images_per_patient and len(images) > images_per_patient:
                images = rng.choice(images, images_per_patient, replace=False)
            chosen.append(images)
        return chosen

    def mean_colours(self) -> npt.NDArray[np.float64]:
        """(P, 3) mean red, green, blue of each patient's crops, 0 to 255."""
        means = np.concatenate([batch.float().mean(dim=(1, 2)).cpu().numpy() for batch in in_batches(self.crops)])
        return np.stack([means[a:b].mean(axis=0, dtype=np.float64) for a, b in self.ranges()])

    def means(self, pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Mean features of each patient's pictures: (N, D) -> (P, D)."""
        return np.stack([pictures[a:b].mean(axis=0) for a, b in self.ranges()]).astype(np.float64)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """First and last-plus-one picture of each patient."""
        return zip(self.offsets[:-1], self.offsets[1:], strict=True)


def in_batches(crops: Tensor, size: int = 256) -> Iterator[Tensor]:
    """Consecutive views of the pictures, for passes that train nothing."""
    return (crops[start : start + size] for start in range(0, len(crops), size))


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
) -> Bags:
    """Decode a cohort into the run folder, or take what an earlier call left there.

    Args:
        segment: whether to wipe out what surrounds each picture's lymphocyte.
        sample_date_format: of SAMPLE_DATE, if not date_format.
        sex_codes: what GENDER's codes mean, as `parse_sex_codes` takes it.
        picture_size: the analyser's, width and height in pixels, where the cohort holds only the pictures' centres; the
            bundle says of pictures of another size that they are unusual. Default: that of the files.

    Raises:
        CohortError: the table or a labelled patient cannot be used; every such patient is named.
        UsageError: no date to take ages at, or the run folder was made from other data or another date, or with
            pictures segmented the other way.
        CropsError: the disk is full, or the run folder cannot be written.
    """
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
            f"{cohort.table}: has no SAMPLE_DATE, so ages need --reference-date (the day they are taken at)"
        )
    labelled = _labelled(cohort)
    jobs = _list_pictures(cohort, labelled)
    facts = {
        "table_sha256": cohort.table_sha256,
        "reference_date": _age_rule(cohort, reference_date),
        "date_format": date_format or "",
        "sample_date_format": sample_date_format or "",
        "sex_codes": sex_codes or "",
        "picture_size": "{} x {}".format(*picture_size) if picture_size else "",
        "segmented": "yes" if segment else "no",
    }
    if not (run / "crops" / "cohort.json").exists():
        try:
            written = _write(cohort, labelled, jobs, run / "crops", facts)
        except OSError as error:
            raise _cannot_write(run / "crops", len(jobs), error) from error
        if written:
            return load_crops(run)
    bags = load_crops(run)
    _check_source(run, bags.facts, facts, cohort, jobs)
    return bags


def load_crops(run: Path) -> Bags:
    """The bags in a run folder.

    Raises:
        UsageError: `python -m train crops` has not run there.
    """
    folder = run / "crops"
    if not (folder / "cohort.json").exists():
        raise UsageError(f"{run}: has no crops yet. Run `python -m train crops` first")
    table = pd.read_csv(folder / "patients.csv", dtype={"patient_id": str}, keep_default_na=False)
    images = pd.read_csv(folder / "images.csv", dtype=str, keep_default_na=False)
    counts = table["images"].to_numpy()
    return Bags(
        # Copy-on-write: torch wants a writable array, the file is never written.
        crops=torch.from_numpy(np.load(folder / "crops.npy", mmap_mode="c")),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        patient_ids=table["patient_id"].tolist(),
        image_names=images["image"].tolist(),
        labels=table["label"].to_numpy(np.int64),
        clinical=table[["sex", "lymph_count", "age_years"]].to_numpy(np.float32),
        # A run folder from before segmentation does not say that its pictures are whole.
        facts={"segmented": "no"} | json.loads((folder / "cohort.json").read_text()),
    )


def _labelled(cohort: Cohort) -> list[Patient]:
    """The patients with label 0 or 1, in order."""
    if not cohort.has_labels:
        raise CohortError(f"{cohort.table}: has no column LABEL (1 malignant, 0 reactive, -1 unknown)")
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
    for label, meaning in (("1", "malignant"), ("0", "reactive")):
        if sum(patient.label == label for patient in labelled) < 5:
            raise CohortError(f"{cohort.table}: fewer than 5 {meaning} patients, 5 folds need one each")
    return labelled


def _age_rule(cohort: Cohort, reference_date: dt.date | None) -> str:
    """At which date ages were taken, in words."""
    if reference_date is None:
        return "SAMPLE_DATE"
    return f"SAMPLE_DATE, else {reference_date}" if cohort.has_sample_dates else reference_date.isoformat()


def _list_pictures(cohort: Cohort, patients: list[Patient]) -> list[Job]:
    root = cohort.folder.resolve()
    jobs = [(patient, name) for patient in patients for name in _pictures(cohort.folder, root, patient)]
    if not jobs:
        raise CohortError(f"{cohort.folder}: no labelled patient has a picture")
    return jobs


def _check_source(run: Path, held: dict[str, str], facts: dict[str, str], cohort: Cohort, jobs: list[Job]) -> None:
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
            f"have changed, so nobody can say whether the pictures have. Copy the pictures with their times (cp -a, "
            f"rsync -a), or choose another run folder"
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
        for job, told in zip(jobs, pool.map(lambda job: _tell(folder, root, job)[0], jobs), strict=True):
            digest.update(_line(job, told))
    return digest.hexdigest()


def _times_digest(folder: Path, jobs: list[Job]) -> str:
    """What earlier versions wrote down: SHA-256 over names, sizes and times."""
    digest = hashlib.sha256()
    for job in jobs:
        status = (folder / job[0].patient_id / job[1]).lstat()
        digest.update(_line(job, f"{status.st_size} {status.st_mtime_ns}"))
    return digest.hexdigest()


def _line(job: Job, told: str) -> bytes:
    patient, name = job
    return f"{patient.patient_id}/{name} {told}\n".encode(errors="surrogateescape")


def _tell(folder: Path, root: Path, job: Job) -> tuple[str, bytes | RejectedImage]:
    """The SHA-256 of a picture's bytes, and the bytes; or why it cannot be read, as text and as an error.

    Raises:
        CohortError: reading broke off.
    """
    patient, name = job
    path = folder / patient.patient_id / name
    told, data = try_picture(path, root)
    if isinstance(data, OSError):
        raise CohortError(f"{path}: reading broke off ({data.strerror}). Try again") from data
    return told, data


def _write(cohort: Cohort, patients: list[Patient], jobs: list[Job], folder: Path, facts: dict[str, str]) -> bool:
    """Write all of the files or none. False: another call has written them in the meantime."""
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / "lock"):
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
    """Pass over what this file system cannot do."""
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
        What `_content_digest` gives of the bytes that were decoded, and the pictures' sizes: smallest and largest
        width, smallest and largest height.
    """
    root = cohort.folder.resolve()

    def decode(job: Job) -> tuple[str, npt.NDArray[np.uint8] | RejectedImage, tuple[int, int]]:
        told, data = _tell(cohort.folder, root, job)
        if isinstance(data, RejectedImage):
            return told, data, (0, 0)
        try:
            crop, size = decode_crop(data, CROP_SIZE)
        except RejectedImage as error:
            return told, error, (0, 0)
        return told, keep_cell(crop) if segment else crop, size

    used: list[dict[str, str]] = []
    rejected: list[dict[str, str]] = []
    sizes: set[tuple[int, int]] = set()
    digest = hashlib.sha256()
    with (folder / PART).open("wb") as file:
        with _if_supported():  # so that a disk that is too small ends this before anything is decoded
            os.posix_fallocate(file.fileno(), 0, len(jobs) * CROP_BYTES)
        _write_header(file, len(jobs))
        with ThreadPoolExecutor() as pool:
            for job, (told, crop, size) in zip(jobs, pool.map(decode, jobs), strict=True):
                digest.update(_line(job, told))
                row = {"patient_id": job[0].patient_id, "image": job[1]}
                if isinstance(crop, RejectedImage):
                    rejected.append(row | {"reason": str(crop)})
                else:
                    file.write(crop.tobytes())
                    used.append(row)
                    sizes.add(size)
        file.truncate()  # cuts off the space of rejected pictures
        file.seek(0)
        _write_header(file, len(used))
        file.flush()
        with _if_supported():  # on a share, a full disk may show only now
            os.fsync(file.fileno())
    os.replace(folder / PART, folder / "crops.npy")
    columns = ["patient_id", "image"]
    pd.DataFrame(used, columns=columns).to_csv(folder / "images.csv", index=False, errors="backslashreplace")
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


def _pictures(folder: Path, root: Path, patient: Patient) -> tuple[str, ...]:
    path = folder / patient.patient_id
    try:
        if leaves(path, root):
            raise CohortError(f"{path}: links out of the cohort. Copy the patient's folder into it")
        return _told(path, list_images(path)).names
    except OSError as error:
        raise CohortError(f"{path}: a labelled patient's folder cannot be read ({error.strerror})") from error


def _told(folder: Path, listing: Listing) -> Listing:
    if listing.below:
        names = ", ".join(ascii(name) for name in listing.below)
        LOG.warning("%s: folders in it hold pictures, which are not looked at: %s", folder, names)
    return listing


def _write_patients(patients: list[Patient], image_owner: "pd.Series[str]", folder: Path) -> None:
    counts = image_owner.value_counts()
    empty = [patient.patient_id for patient in patients if patient.patient_id not in counts]
    if empty:
        raise CohortError(f"no usable picture: {', '.join(empty)}. Set their LABEL to -1 to leave them out")
    rows = []
    for patient in patients:
        if patient.clinical is None:  # excluded by _labelled
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
