"""A patient on its way through the pipeline, and what comes out at the end: rows of the results."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infer.cohort.patients import Clinical, Patient, Verdict
from infer.pictures.decode import leaves
from infer.pictures.listing import list_images, still_changing
from infer.pictures.look import Crop


@dataclass
class ImageResult:
    """A row of images.csv."""

    image: str
    reason: str = ""  # why rejected; empty while the picture is good
    baseline_probability: float | None = None  # raw: calibration is for patients
    cell_class: int | None = None
    cell_class_confidence: float | None = None
    contribution: float | None = None  # to the logit of the ImageNet member's picture expert


@dataclass(frozen=True)
class Scores:
    """A patient's probabilities; the members' are calibrated."""

    probability: float
    decision: str
    members: dict[str, float]
    gate: float

    @property
    def disagreement(self) -> float:
        """Largest minus smallest of the members."""
        return max(self.members.values()) - min(self.members.values())


@dataclass(frozen=True)
class PatientResult:
    """A row of predictions.csv with its rows of images.csv."""

    patient_id: str
    status: str  # scored, refused, failed
    reason: str
    age_years: float | None
    scores: Scores | None
    images: tuple[ImageResult, ...]
    fingerprint: str = ""  # of all that the result hangs on, as hexadecimal
    ignored_files: int = 0
    unusual_colour: bool = False  # far from the training patients' stain
    unusual_sizes: Mapping[str, int] = field(default_factory=dict)  # "width x height" in pixels -> pictures
    pictures_below: tuple[str, ...] = ()  # folders in the patient's that hold pictures, which nobody looked at
    contents: tuple[str, ...] = ()  # the first digits of each decoded picture's SHA-256

    @property
    def rejected(self) -> int:
        """Pictures that could not be used."""
        return sum(bool(image.reason) for image in self.images)


@dataclass
class Bag:
    """A patient on its way through the pipeline."""

    patient: Patient
    folder: Path
    verdict: Verdict | None
    images: list[ImageResult] = field(default_factory=list)
    ignored_files: int = 0
    pictures_below: tuple[str, ...] = ()
    unusual_sizes: Counter[str] = field(default_factory=Counter)
    contents: list[str] = field(default_factory=list)
    waiting: list[tuple[int, Crop]] = field(default_factory=list)  # held back until there are enough to score at all
    used: int = 0
    scored: int = 0
    closed: bool = False
    baseline_sum: float = 0.0
    contribution_sum: float = 0.0
    maps_sum: npt.NDArray[np.float64] | None = None
    colour_sum: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    cell_classes: list[int] = field(default_factory=list)
    finite: bool = True  # no network gave what is no number
    _hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def see(self, *what: object) -> None:
        """Add to the fingerprint what the result hangs on, in an order that is always the same."""
        self._hash.update(repr(what).encode("utf-8", "surrogateescape"))

    @property
    def fingerprint(self) -> str:
        """Of everything seen so far, as hexadecimal."""
        return self._hash.hexdigest()

    @property
    def done(self) -> bool:
        """Whether nothing of it is under way any more."""
        return self.closed and (self.verdict is not None or self.scored == self.used)

    @property
    def clinical(self) -> Clinical:
        """Complete for every bag whose pictures are scored."""
        if self.patient.clinical is None:
            raise ValueError(f"{self.patient.patient_id}: has no clinical values")
        return self.patient.clinical


def open_bag(folder: Path, root: Path, patient: Patient, settle: float) -> Bag:
    """Begin a patient: look into its folder, or note at once why it has no probability.

    Args:
        folder: the cohort's, `root` the same resolved.
        settle: seconds that the folder and its files must have been left alone.
    """
    bag = _listed(folder, root, patient, settle)
    names = [image.image for image in bag.images]
    bag.see(patient.patient_id, patient.clinical, bag.verdict, names, bag.ignored_files, bag.pictures_below)
    return bag


def _listed(folder: Path, root: Path, patient: Patient, settle: float) -> Bag:
    path = folder / patient.patient_id
    bag = Bag(patient, path, patient.verdict)
    if bag.verdict:
        return bag
    try:
        if leaves(path, root):
            bag.verdict = Verdict("failed", "folder_outside: the patient's folder is a link out of the cohort")
            return bag
        if settle and (why := still_changing(path, settle)):
            bag.verdict = Verdict("failed", f"still_changing: {why}")
            return bag
        listing = list_images(path)
    except (FileNotFoundError, NotADirectoryError):
        bag.verdict = Verdict("failed", f"folder_missing: the cohort has no folder of this name{_hint(patient)}")
        return bag
    except OSError as error:
        bag.verdict = Verdict("failed", f"folder_unreadable: {error.strerror}")
        return bag
    bag.ignored_files = listing.ignored
    bag.pictures_below = listing.below
    bag.images = [ImageResult(name) for name in listing.names]
    return bag


def _hint(patient: Patient) -> str:
    if not patient.look_alike:
        return ""
    return (
        f", but {patient.look_alike!a}, which looks the same and differs in capitals, blanks or the way that "
        f"accents are stored. It was not taken: rename one of them"
    )
