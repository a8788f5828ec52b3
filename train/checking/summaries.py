"""What is kept of each picture: digests, a small grey copy, measures. The pictures themselves are not kept in memory.

For 20,000 pictures that is 60 MB.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from infer.cohort.patient import Cohort
from infer.errors import CohortError
from infer.pictures.compression import jpeg_quality
from infer.pictures.decode import RejectedImage, decode_crop
from infer.pictures.measure import JPEG_QUALITY, measured
from train.checking.table import Contents, patient_of
from train.core.arrays import Floats, Indices, Pixels
from train.data.bags import CROP_SIZE, Bags
from train.data.labelled import Job
from train.data.source import read_content

ACROSS, DOWN = 9, 8  # blocks that the difference hash compares, each with its right neighbour
SMALL = 28  # a side of the grey copy
KEPT = 512  # pictures kept whole, to time a training on


@dataclass(frozen=True)
class Prints:
    """What tells pictures apart, of N pictures."""

    digests: list[bytes]  # (N,) SHA-256 of the crop
    hashes: npt.NDArray[np.uint64]  # (N,) difference hash of the crop: brighter or darker than the block to the left
    small: npt.NDArray[np.uint8]  # (N, 28, 28) the crop in grey


@dataclass(frozen=True)
class Summaries:
    """The pictures that can be used, patient after patient, and those that cannot."""

    patient_ids: list[str]  # (P,)
    labels: Indices  # (P,) 1 malignant
    lines: Indices  # (P,) of the table
    names: list[str]  # (N,) file names
    owner: Indices  # (N,) index of each picture's patient
    prints: Prints
    rejected: tuple[tuple[str, str, str], ...]  # patient, file, why
    files: pd.DataFrame  # (N,) width, height, bytes, modified (seconds since 1970), jpeg_quality; those that are known
    measures: pd.DataFrame | None = None  # (N,) of infer.pictures.measure
    sample: Pixels | None = None  # (at most KEPT, 112, 112, 3) some of the crops
    seconds: float = 0.0  # that looking took

    def place(self, picture: int) -> str:
        """Patient and file name."""
        return f"{self.patient_ids[self.owner[picture]]}/{self.names[picture]}"

    def counts(self) -> Indices:
        """(P,) usable pictures of each patient."""
        return np.bincount(self.owner, minlength=len(self.patient_ids)).astype(np.int64)

    def per_patient(self, values: Floats) -> Floats:
        """Means (P,) of values (N,); NaN for a patient without a picture."""
        with np.errstate(invalid="ignore"):
            return np.bincount(self.owner, values, len(self.patient_ids)) / self.counts()


@dataclass(frozen=True)
class _Seen:
    crop: Pixels
    prints: tuple[bytes, int, npt.NDArray[np.uint8]]
    file: dict[str, float]
    measures: dict[str, float]


def prints_of(crops: Iterator[Pixels]) -> Prints:
    """The prints of pictures (112, 112, 3)."""
    return _gathered([print_of(crop) for crop in crops])


def print_of(crop: Pixels) -> tuple[bytes, int, npt.NDArray[np.uint8]]:
    """Digest, difference hash (Krawetz 2013) and grey copy of one picture."""
    grey = Image.fromarray(crop).convert("L")
    blocks = np.asarray(grey.resize((ACROSS, DOWN), Image.Resampling.BOX), np.int16)
    brighter = np.packbits(blocks[:, 1:] > blocks[:, :-1])
    small = np.asarray(grey.resize((SMALL, SMALL), Image.Resampling.BOX))
    return hashlib.sha256(crop.tobytes()).digest(), int(brighter.view(np.uint64)[0]), small


def _gathered(found: Sequence[tuple[bytes, int, npt.NDArray[np.uint8]]]) -> Prints:
    small = np.zeros((len(found), SMALL, SMALL), np.uint8)
    for at, (*_, copy) in enumerate(found):
        small[at] = copy
    return Prints([digest for digest, *_ in found], np.array([code for _, code, _ in found], np.uint64), small)


def summarise_files(cohort: Cohort, known: Contents) -> Summaries:
    """Read, decode and measure every picture, as training and scoring decode it.

    Raises:
        CohortError: reading broke off.
    """
    start = time.monotonic()
    root, every = cohort.folder.resolve(), max(len(known.jobs) // KEPT, 1)

    def one(job: Job) -> _Seen | RejectedImage:
        _, data = read_content(cohort.folder, root, job)
        if isinstance(data, RejectedImage):
            return data
        try:
            crop, size = decode_crop(data, CROP_SIZE)
        except RejectedImage as error:
            return error
        quality = jpeg_quality(data)
        facts = {"width": size[0], "height": size[1], "bytes": len(data), "modified": _modified(cohort.folder, job)}
        return _Seen(
            crop,
            print_of(crop),
            {**facts, JPEG_QUALITY: np.nan if quality is None else quality},
            measured(crop),
        )

    used: list[Job] = []
    rejected: list[tuple[str, str, str]] = []
    sample: list[Pixels] = []
    rows: list[_Seen] = []
    with ThreadPoolExecutor() as pool:
        for at, (job, seen) in enumerate(zip(known.jobs, pool.map(one, known.jobs), strict=True)):
            if isinstance(seen, RejectedImage):
                rejected.append((job[0].patient_id, job[1], str(seen)))
                continue
            if at % every == 0 and len(sample) < KEPT:
                sample.append(seen.crop)
            used.append(job)
            rows.append(_Seen(np.empty(0, np.uint8), seen.prints, seen.file, seen.measures))
    return Summaries(
        [patient.patient_id for patient in known.labelled],
        np.array([int(patient.label) for patient in known.labelled], np.int64),
        np.array([patient.line for patient in known.labelled], np.int64),
        [name for _, name in used],
        patient_of(tuple(used), known.labelled),
        _gathered([row.prints for row in rows]),
        tuple(rejected),
        pd.DataFrame([row.file for row in rows], columns=["width", "height", "bytes", "modified", JPEG_QUALITY]),
        pd.DataFrame([row.measures for row in rows]),
        np.stack(sample) if sample else None,
        time.monotonic() - start,
    )


def summarise_crops(bags: Bags, run: Path, known: Contents) -> Summaries:
    """The same of crops that a training has decoded already, without measures."""
    refused = pd.read_csv(run / "crops" / "rejected.csv", dtype=str, keep_default_na=False)
    lines = {patient.patient_id: patient.line for patient in known.labelled}
    return Summaries(
        bags.patient_ids,
        bags.labels,
        np.array([lines[name] for name in bags.patient_ids], np.int64),
        bags.image_names,
        bags.patient_of_image(),
        prints_of(iter(bags.crops.cpu().numpy())),
        tuple(map(tuple, refused[["patient_id", "image", "reason"]].to_numpy().tolist())),
        pd.DataFrame(index=range(len(bags.crops))),
    )


def _modified(folder: Path, job: Job) -> float:
    path = folder / job[0].patient_id / job[1]
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise CohortError(f"{path}: could not be read to its end ({error.strerror}). Try again") from error
