"""Labelled patients as arrays: their crops, patient after patient, and their clinical values."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from infer.errors import UsageError
from train.data.whose_pictures import NOBODY, blank_picture

CROP_SIZE = 112  # pixels; the report's


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
    # (N,) of JPEG files, nan for others; None in a run folder of an earlier version.
    jpeg_quality: npt.NDArray[np.float64] | None = None
    centres: tuple[str, ...] | None = None  # (P,) the hospital of each patient, where the table has a column CENTRE

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
            jpeg_quality=None if self.jpeg_quality is None else self.jpeg_quality[images],
            centres=None if self.centres is None else tuple(self.centres[index] for index in patients),
        )

    def pictures(self, patient: int) -> Tensor:
        """A patient's pictures (n, 112, 112, 3) uint8; for NOBODY one blank picture."""
        if patient == NOBODY:
            return blank_picture(self.crops.shape[1]).to(self.crops.device)
        return self.crops[int(self.offsets[patient]) : int(self.offsets[patient + 1])]

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
        jpeg_quality=pd.to_numeric(images["jpeg_quality"]).to_numpy(np.float64) if "jpeg_quality" in images else None,
    )
