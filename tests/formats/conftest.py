"""The small cohorts of the runtime's tests."""

from tests.infer.conftest import cohort, pristine

__all__ = ["cohort", "pristine"]
