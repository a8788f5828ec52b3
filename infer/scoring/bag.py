"""A patient in the pipeline: list its folder, collect its pictures, accumulate its sums."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infer.cohort.patient import Clinical, Patient, Verdict
from infer.pictures.decode import leaves
from infer.pictures.listing import list_images, still_changing
from infer.pictures.look import Crop
from infer.reasons import Reason
from infer.scoring.result import ImageResult


@dataclass
class Bag:
    """A patient in the pipeline."""

    patient: Patient
    folder: Path
    verdict: Verdict | None
    images: list[ImageResult] = field(default_factory=list)
    ignored_files: int = 0
    pictures_below: tuple[str, ...] = ()
    unusual_sizes: Counter[str] = field(default_factory=Counter)
    contents: list[str] = field(default_factory=list)
    waiting: list[tuple[int, Crop]] = field(default_factory=list)  # held back until there are enough to score
    used: int = 0
    scored: int = 0
    closed: bool = False
    sums: dict[str, Any] = field(default_factory=dict)  # by member, once the first picture has been scored
    measured: dict[str, list[float]] = field(default_factory=dict)  # by measure, of the pictures used
    finite: bool = True  # whether all outputs of the networks are finite
    _hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add_to_fingerprint(self, *what: object) -> None:
        """Add something that the result depends on to the fingerprint, always in the same order."""
        self._hash.update(repr(what).encode("utf-8", "surrogateescape"))

    @property
    def fingerprint(self) -> str:
        """Digest of everything seen so far, hexadecimal."""
        return self._hash.hexdigest()

    @property
    def done(self) -> bool:
        """Whether none of its pictures is still in the pipeline."""
        return self.closed and (self.verdict is not None or self.scored == self.used)

    def measure(self, measures: Mapping[str, float]) -> None:
        """Add what was measured on a picture that is used."""
        for name, value in measures.items():
            self.measured.setdefault(name, []).append(value)

    @property
    def measures(self) -> dict[str, float]:
        """The mean of each measure over the pictures that have it."""
        return {name: math.fsum(values) / len(values) for name, values in self.measured.items()}

    @property
    def clinical(self) -> Clinical:
        """The clinical values, which every bag with scored pictures has."""
        if self.patient.clinical is None:
            raise ValueError(f"{self.patient.patient_id}: has no clinical values")
        return self.patient.clinical


def open_bag(folder: Path, root: Path, patient: Patient, settle: float) -> Bag:
    """Begin a patient: list its folder, or record why it has no probability.

    Args:
        folder: the cohort's folder; `root` is the same, resolved.
        settle: seconds for which the folder and its files must have been unchanged.
    """
    bag = _listed(folder, root, patient, settle)
    names = [image.image for image in bag.images]
    bag.add_to_fingerprint(
        patient.patient_id,
        patient.clinical,
        patient.sample_date,
        bag.verdict,
        names,
        bag.ignored_files,
        bag.pictures_below,
    )
    return bag


def _listed(folder: Path, root: Path, patient: Patient, settle: float) -> Bag:
    path = folder / patient.patient_id
    bag = Bag(patient, path, patient.verdict)
    if bag.verdict:
        return bag
    try:
        if leaves(path, root):
            bag.verdict = Verdict.of(Reason.FOLDER_OUTSIDE)
            return bag
        if settle and (why := still_changing(path, settle)):
            bag.verdict = Verdict.of(Reason.STILL_CHANGING, what=why)
            return bag
        listing = list_images(path)
    except (FileNotFoundError, NotADirectoryError):
        bag.verdict = Verdict.of(Reason.FOLDER_MISSING, hint=_hint(patient))
        return bag
    except OSError as error:
        bag.verdict = Verdict.of(Reason.FOLDER_UNREADABLE, error=error.strerror)
        return bag
    bag.ignored_files = listing.ignored
    bag.pictures_below = listing.below
    bag.images = [ImageResult(name) for name in listing.names]
    return bag


def _hint(patient: Patient) -> str:
    if not patient.look_alike:
        return ""
    return (
        f", but {patient.look_alike!a}, which looks the same and differs in capitals, spaces or the way that "
        f"accents are stored. It was not taken: rename one of them"
    )
