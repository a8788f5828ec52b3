import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.bundle.manifest import Calibration, Ensemble, OperatingPoint
from infer.scoring.ensemble import calibrated, decide, decide_patient, disagree, disagreement, weighted, with_a_say


def mapped(probability: float, slope: float, intercept: float, clip: float = 1e-6) -> float:
    return float(calibrated(np.array(probability), Calibration(slope, intercept, clip)))


@given(st.floats(1e-6, 1 - 1e-6))
def test_slope_one_and_intercept_zero_change_nothing(probability: float) -> None:
    assert mapped(probability, 1.0, 0.0) == pytest.approx(probability, rel=1e-9)


def test_calibration_by_hand() -> None:
    assert mapped(0.75, 2.0, 0.0) == pytest.approx(0.9, abs=1e-15)  # odds 3 squared
    assert mapped(0.5, 1.0, math.log(3)) == pytest.approx(0.75, abs=1e-15)  # odds 1 times 3
    assert mapped(0.9, 0.5, 0.0) == pytest.approx(0.75, abs=1e-15)  # root of the odds 9
    assert mapped(0.2, 0.0, 0.0) == 0.5


def test_certainty_is_kept_off_zero_and_one() -> None:
    assert mapped(0.0, 1.0, 0.0, clip=0.01) == pytest.approx(0.01, abs=1e-15)
    assert mapped(1.0, 1.0, 0.0, clip=0.01) == pytest.approx(0.99, abs=1e-15)
    assert mapped(0.0, 1.0, 0.0) == pytest.approx(1e-6, rel=1e-9)


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
    st.floats(0.01, 5),
    st.floats(-5, 5),
)
def test_calibration_keeps_the_order(probabilities: list[float], slope: float, intercept: float) -> None:
    found = calibrated(np.sort(probabilities), Calibration(slope, intercept))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_the_weighted_mean_by_hand() -> None:
    ensemble = Ensemble(calibration={}, weights={"baseline": 0.5, "scan": 0.3, "moe": 0.2}, operating_points={})
    members = {"moe": np.array([1.0, 0.0]), "scan": np.array([0.5, 0.1]), "baseline": np.array([0.2, 0.6])}
    np.testing.assert_allclose(weighted(members, ensemble), [0.45, 0.33], rtol=1e-15)


@pytest.mark.parametrize(
    ("probability", "decision"),
    [
        (0.0, "reactive"),
        (math.nextafter(0.4, 0), "reactive"),
        (0.4, "refer"),
        (0.5, "refer"),
        (math.nextafter(0.6, 0), "refer"),
        (0.6, "malignant"),
        (1.0, "malignant"),
    ],
)
def test_decisions_at_the_edges_of_the_band(probability: float, decision: str) -> None:
    assert decide(probability, OperatingPoint(refer_low=0.4, refer_high=0.6)) == decision


def test_the_disagreement_by_hand() -> None:
    members = {"moe": np.array([1.0, 0.3]), "scan": np.array([0.5, 0.1]), "baseline": np.array([0.25, 0.2])}
    of = Ensemble(calibration={}, weights={"moe": 0.3, "scan": 0.65, "baseline": 0.05}, operating_points={})
    np.testing.assert_allclose(disagreement(members, of), [0.75, 0.2], rtol=1e-15)


def test_a_member_that_has_no_say_holds_nobody_up() -> None:
    members = {"moe": np.array([0.02, 0.98]), "scan": np.array([0.7, 0.7]), "baseline": np.array([0.1, 0.9])}
    weights = {"moe": 0.91, "scan": 0.04, "baseline": 0.05}
    of = Ensemble(calibration={}, weights=weights, operating_points={})
    np.testing.assert_allclose(disagreement(members, of), [0.08, 0.08], rtol=1e-12)
    alone = msgspec.structs.replace(of, weights={"moe": 0.96, "scan": 0.04, "baseline": 0.0})
    assert disagreement(members, alone).tolist() == [0.0, 0.0]
    assert with_a_say(alone) == ("moe",)


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_above_the_bound_nobody_is_decided(probability: float) -> None:
    point = OperatingPoint(refer_low=0.4, refer_high=0.6)
    bound = Ensemble(calibration={}, weights={}, operating_points={"balanced": point}, disagreement=0.75)
    none = Ensemble(calibration={}, weights={}, operating_points={"balanced": point})
    by_probability, above = decide(probability, point), math.nextafter(0.75, 1)
    assert [decide_patient(probability, apart, bound, "balanced") for apart in (0.0, 0.75)] == [by_probability] * 2
    assert decide_patient(probability, above, bound, "balanced") == "refer"
    assert decide_patient(probability, 1.0, none, "balanced") == by_probability
    assert [disagree(above, of) for of in (bound, none)] == [True, False]


def test_a_band_without_width_never_refers() -> None:
    point = OperatingPoint(refer_low=0.5, refer_high=0.5)
    found = [decide(probability, point) for probability in (math.nextafter(0.5, 0), 0.5)]
    assert found == ["reactive", "malignant"]
