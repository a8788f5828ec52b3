"""Which values a patient may have: a bundle says it, the cohort is held against it."""

import msgspec


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Plausible values, both ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


class Plausible(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Outside these a patient is refused."""

    age_years: Range
    lymph_count: Range  # 10^9/L; the low end itself is excluded, a count is above 0
    minimum_images: int
