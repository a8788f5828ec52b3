"""The result of a patient: plain data that the journal stores and the writers render."""

import math
from collections import Counter

import msgspec

from infer.bundle.reference import OF_PATIENTS
from infer.reasons import code_of

SCORED = "scored"


class ImageResult(msgspec.Struct):
    """A picture."""

    image: str  # file name
    reason: str = ""  # why the picture was rejected; empty if it is good
    values: dict[str, float | int] = {}  # by column of images.csv, from the members
    # In log odds of malignancy, of the ensemble and of each member; None and empty if the patient is not scored, or has
    # only this picture.
    influence: float | None = None
    influence_of: dict[str, float] = {}

    @property
    def finite(self) -> bool:
        """Whether all influences are finite."""
        return all(map(math.isfinite, (self.influence or 0.0, *self.influence_of.values())))


class Scores(msgspec.Struct, frozen=True):
    """A patient's probabilities of malignancy; the members' are calibrated."""

    probability: float
    decision: str
    members: dict[str, float]
    further: dict[str, float | int]  # by column of predictions.csv, from the members
    clinical: float | None = None  # what sex, age and count alone would say
    ood_p: float = 1.0  # conformal p that the patient is like the training patients
    disagreement_of_weighted: float = 0.0  # among members with a say, before any recalibration
    disagree: bool = False  # whether that is above the bundle's bound: then the decision is `refer`

    @property
    def finite(self) -> bool:
        """Whether all values are finite."""
        alone = () if self.clinical is None else (self.clinical,)
        return all(
            map(math.isfinite, (self.probability, *self.members.values(), *self.further.values(), self.ood_p, *alone))
        )

    @property
    def disagreement(self) -> float:
        """Largest minus smallest probability of the members."""
        return max(self.members.values()) - min(self.members.values())


class PatientResult(msgspec.Struct, frozen=True):
    """The result of a finished patient."""

    patient_id: str
    status: str  # scored, refused, failed
    reason: str
    age_years: float | None
    scores: Scores | None
    images: tuple[ImageResult, ...]
    fingerprint: str = ""  # digest of all that the result depends on, hexadecimal
    ignored_files: int = 0
    unusual_sizes: dict[str, int] = {}  # "width x height" in pixels -> pictures
    pictures_below: tuple[str, ...] = ()  # subfolders that contain pictures, which were ignored
    measures: dict[str, float] = {}  # what was measured on patient and pictures, by name (infer.bundle.reference)
    contents: tuple[str, ...] = ()  # the first digits of each decoded picture's SHA-256
    # What is unlike the training patients, as "sharpness low", the most unlike first; a refused patient's too.
    unusual: tuple[str, ...] = ()
    sample_date: str = ""  # ISO date; empty: not known

    @property
    def unusual_pictures(self) -> tuple[str, ...]:
        """What is unusual about the pictures: what logs may say, which hold no patient's values."""
        return tuple(one for one in self.unusual if one.rpartition(" ")[0] not in OF_PATIENTS)

    @property
    def code(self) -> str:
        """The reason's code; empty for a scored patient."""
        return code_of(self.reason)

    @property
    def rejected(self) -> int:
        """Pictures that could not be used."""
        return sum(bool(image.reason) for image in self.images)

    @property
    def used(self) -> int:
        """Pictures that could be used."""
        return len(self.images) - self.rejected

    @property
    def image_reasons(self) -> Counter[str]:
        """Number of rejected pictures by code."""
        return Counter(code_of(image.reason) for image in self.images if image.reason)
