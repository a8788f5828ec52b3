"""False alarms and power with narrow bounds, as `python -m tests.drift_rates` prints them: some 20 minutes."""

import numpy as np
import pytest

from tests.drift_rates import WITH_TIES, WITHOUT_TIES, Hospital, false_alarms, first_alarm, power

pytestmark = pytest.mark.slow
HOSPITALS = {"with ties": WITH_TIES, "without ties": WITHOUT_TIES}


@pytest.mark.parametrize("hospital", HOSPITALS.values(), ids=HOSPITALS)
@pytest.mark.parametrize("patients", [20, 100, 500])
def test_one_night_in_twenty_is_a_false_alarm_whatever_its_number_of_patients(
    hospital: Hospital, patients: int
) -> None:
    nights, measures = false_alarms(hospital, patients, 1_000, seed=0)
    assert 0.03 <= nights <= 0.07
    assert 0.045 <= measures <= 0.056


def test_five_patients_never_raise_an_alarm() -> None:
    assert false_alarms(WITH_TIES, 5, 1_000, seed=0) == (0, 0)


@pytest.mark.parametrize("hospital", HOSPITALS.values(), ids=HOSPITALS)
def test_one_hospital_in_twenty_at_most_has_a_false_alarm_in_300_nights(hospital: Hospital) -> None:
    for patients in (5, 20):
        rng = np.random.default_rng(patients)
        first = [first_alarm(hospital, rng, 300, patients)[0] for _ in range(1_000)]
        assert np.count_nonzero(first) / 1_000 <= 0.05


def test_changes_that_matter_are_found() -> None:
    assert power(20, 1.0, 1.0, 300, seed=0) > 0.7
    assert power(100, 0.5, 1.0, 300, seed=0) > 0.55
    assert power(100, 0.0, 1.5, 300, seed=0) > 0.6
