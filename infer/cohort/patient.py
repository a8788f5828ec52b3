"""A patient as the table describes it, and the whole table, read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infer.reasons import Reason


@dataclass(frozen=True, slots=True)
class Clinical:
    """What the hospital knows beside the pictures."""

    female: bool
    lymph_count: float  # 10^9/L
    age_years: float

    def vector(self) -> npt.NDArray[np.float32]:
        """The networks' clinical input, raw: (3,) sex (F = 1), count in 10^9/L, age in years."""
        return np.array([self.female, self.lymph_count, self.age_years], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a patient has no probability: `refused` by its data, or `failed` though it should have been scorable."""

    status: str  # refused or failed
    reason: str  # "code: sentence"

    @classmethod
    def of(cls, reason: Reason, **details: object) -> "Verdict":
        """The verdict of a reason; `details` fill the gaps of its sentence."""
        return cls(reason.status, reason.text(**details))


@dataclass(frozen=True, slots=True)
class Patient:
    """One row of the table."""

    patient_id: str
    line: int  # where the row begins in the table, the header is line 1
    clinical: Clinical | None
    verdict: Verdict | None
    label: str = ""  # the cell as it stands; training checks it
    look_alike: str = ""  # a folder whose name looks the same as the ID and is another, where no folder has the ID's


@dataclass(frozen=True)
class Cohort:
    """The table, read."""

    folder: Path
    table: Path
    table_sha256: str
    patients: tuple[Patient, ...]  # in the table's order
    has_sample_dates: bool
    has_labels: bool
    readings: Mapping[str, str] = field(default_factory=dict)  # column -> how it was read, for run.json
    unproven: tuple[str, ...] = ()  # columns with dates that could have been read in another order
    folders_without_row: tuple[str, ...] = ()  # in the cohort's folder, but named by no row; sorted
