"""The plausible values of a patient: stated by the bundle, checked for each patient of the cohort."""

import msgspec


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Plausible values, both ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


class Plausible(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Patients outside these ranges are refused."""

    age_years: Range
    lymph_count: Range  # 10^9/L; a count of 0 is refused in any case
    minimum_images: int
