"""A patient as described by the table, and the whole table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infer.reasons import Reason


@dataclass(frozen=True, slots=True)
class Clinical:
    """A patient's clinical values."""

    female: bool
    lymph_count: float  # 10^9/L
    age_years: float

    def vector(self) -> npt.NDArray[np.float32]:
        """The networks' clinical input, raw: (3,) sex (F = 1), count in 10^9/L, age in years."""
        return np.array([self.female, self.lymph_count, self.age_years], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a patient has no probability: `refused` because of its data, or `failed` although it should be scorable."""

    status: str  # refused or failed
    reason: str  # "code: sentence"

    @classmethod
    def of(cls, reason: Reason, **details: object) -> "Verdict":
        """The verdict for a reason; `details` fill the placeholders of its sentence."""
        return cls(reason.status, reason.text(**details))


@dataclass(frozen=True, slots=True)
class Patient:
    """One row of the table."""

    patient_id: str
    line: int  # of the table, where the row begins; the first line is 1
    clinical: Clinical | None
    verdict: Verdict | None
    label: str = ""  # the unchanged cell; training checks it
    centre: str = ""  # the unchanged cell, if it was read; training checks it
    sample_date: str = ""  # ISO date; empty: the table has none, or the row has a verdict
    look_alike: str = ""  # a folder without a row whose name looks like the ID but differs from it


@dataclass(frozen=True)
class Cohort:
    """A cohort as read from its table."""

    folder: Path
    table: Path
    table_sha256: str
    patients: tuple[Patient, ...]  # in the table's order
    has_sample_dates: bool
    has_labels: bool
    readings: Mapping[str, str] = field(default_factory=dict)  # column -> how it was read, for run.json
    unproven: tuple[str, ...] = ()  # columns with dates that could also be read in the other order
    folders_without_row: tuple[str, ...] = ()  # in the cohort's folder, but without a row; sorted
    patients_in_table: int = 0  # more than `patients` in a shard
