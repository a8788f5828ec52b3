"""Decodes a labelled cohort once into a memory-mapped cache, and hands it to training as bags.

RUN/crops/ holds crops.npy (N, 112, 112, 3) uint8, images.csv, patients.csv, rejected.csv and cohort.json. It holds
patients' data: a run folder stays where the cohort may stay.
"""

import datetime as dt
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from infer.cohort import Cohort, Patient, read_cohort
from infer.errors import CohortError, UsageError
from infer.images import RejectedImage, leaves, read_crop
from infer.listing import list_images
from infer.manifest import Plausible, Range
from train.segmentation import segment_crops

LOG = logging.getLogger("lympho")

CROP_SIZE = 112  # pixels; the report's
Job = tuple[Patient, str]  # a picture by its patient and file name
PLAUSIBLE = Plausible(age_years=Range(0.0, 120.0), lymph_count=Range(0.0, 1000.0), minimum_images=10)


@dataclass(frozen=True)
class Bags:
    """All labelled patients and their pictures, patients in the annotation file's order."""

    crops: Tensor  # (N, 112, 112, 3) uint8, patient after patient, by name within a patient
    offsets: npt.NDArray[np.int64]  # (P + 1,) a patient's pictures are crops[offsets[p]:offsets[p + 1]]
    patient_ids: list[str]
    image_names: list[str]  # (N,)
    labels: npt.NDArray[np.int64]  # (P,) 1 malignant
    clinical: npt.NDArray[np.float32]  # (P, 3) sex (F = 1), count in 10^9/L, age in years
    facts: dict[str, str]  # where they come from: table_sha256, reference_date, segmented (yes or no), ...

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
    patients: Path, run: Path, reference_date: dt.date | None, date_format: str | None, segment: bool = False
) -> Bags:
    """Decode a cohort into the run folder, or take what an earlier call left there.

    Args:
        segment: whether to wipe out what surrounds each picture's lymphocyte.

    Raises:
        CohortError: the table or a labelled patient cannot be used; every such patient is named.
        UsageError: no date to take ages at, or the run folder was made from other data or another date, or with
            pictures segmented the other way.
    """
    if run.resolve().is_relative_to(patients.resolve()):
        raise UsageError(f"{run}: lies inside the cohort, which is never written to. Choose another run folder")
    cohort = read_cohort(patients, PLAUSIBLE, reference_date=reference_date, date_format=date_format)
    if reference_date is None and not cohort.has_sample_dates:
        raise UsageError(
            f"{cohort.table}: has no SAMPLE_DATE, so ages need --reference-date (the day they are taken at)"
        )
    labelled = _labelled(cohort)
    jobs = _list_pictures(cohort, labelled)
    facts = {
        "table_sha256": cohort.table_sha256,
        "pictures_sha256": _digest(cohort.folder, jobs),
        "reference_date": _age_rule(cohort, reference_date),
        "date_format": date_format or "",
        "segmented": "yes" if segment else "no",
    }
    folder = run / "crops"
    if (folder / "cohort.json").exists():
        bags = load_crops(run)
        if bags.facts["segmented"] != facts["segmented"]:
            held = "segmented" if bags.facts["segmented"] == "yes" else "whole"
            raise UsageError(f"{run}: holds {held} pictures, see --segment. Choose another run folder")
        if bags.facts != facts:
            raise UsageError(f"{run}: was made from another table, other pictures or dates. Choose another run folder")
        return bags
    folder.mkdir(parents=True, exist_ok=True)
    _decode_all(cohort, labelled, jobs, folder, segment)
    (folder / "cohort.json").write_text(json.dumps(facts, indent=1))  # last: its presence says that the rest is whole
    return load_crops(run)


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


def _digest(folder: Path, jobs: list[Job]) -> str:
    """Changes whenever a picture is added, taken away or written: SHA-256 over names, sizes and times."""
    digest = hashlib.sha256()
    for patient, name in jobs:
        status = (folder / patient.patient_id / name).lstat()
        line = f"{patient.patient_id}/{name} {status.st_size} {status.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _decode_all(cohort: Cohort, patients: list[Patient], jobs: list[Job], folder: Path, segment: bool) -> None:
    root = cohort.folder.resolve()

    def decode(job: Job) -> npt.NDArray[np.uint8] | str:
        patient, name = job
        path = cohort.folder / patient.patient_id / name
        try:
            return read_crop(path, root, CROP_SIZE)
        except RejectedImage as error:
            return str(error)
        except OSError as error:
            raise CohortError(f"{path}: reading broke off ({error.strerror}). Try again") from error

    crops = np.lib.format.open_memmap(
        folder / "crops.part.npy", mode="w+", dtype=np.uint8, shape=(len(jobs), CROP_SIZE, CROP_SIZE, 3)
    )
    used: list[dict[str, str]] = []
    rejected: list[dict[str, str]] = []
    with ThreadPoolExecutor() as pool:
        for (patient, name), crop in zip(jobs, pool.map(decode, jobs), strict=True):
            if isinstance(crop, str):
                rejected.append({"patient_id": patient.patient_id, "image": name, "reason": crop})
            else:
                crops[len(used)] = crop
                used.append({"patient_id": patient.patient_id, "image": name})
    if segment:
        segment_crops(crops[: len(used)])
    crops.flush()
    if rejected:  # rows at the end of the map stayed empty
        np.save(folder / "crops.npy", crops[: len(used)])
        os.remove(folder / "crops.part.npy")
    else:
        os.replace(folder / "crops.part.npy", folder / "crops.npy")
    columns = ["patient_id", "image"]
    pd.DataFrame(used, columns=columns).to_csv(folder / "images.csv", index=False, errors="backslashreplace")
    refused = pd.DataFrame(rejected, columns=[*columns, "reason"])
    refused.to_csv(folder / "rejected.csv", index=False, errors="backslashreplace")
    _write_patients(patients, pd.Series([row["patient_id"] for row in used]), folder)
    LOG.info("crops: %d pictures of %d patients, %d rejected", len(used), len(patients), len(rejected))


def _pictures(folder: Path, root: Path, patient: Patient) -> tuple[str, ...]:
    path = folder / patient.patient_id
    try:
        if leaves(path, root):
            raise CohortError(f"{path}: links out of the cohort. Copy the patient's folder into it")
        return list_images(path).names
    except OSError as error:
        raise CohortError(f"{path}: a labelled patient's folder cannot be read ({error.strerror})") from error


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
