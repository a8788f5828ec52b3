"""Recalibration and thresholds: against scikit-learn, on patients that had no part in the fit, and at the limits."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from export.adapting.points import FOLDS, USUAL, choose_points, cross_fit, keeping, malignant_needed
from export.adapting.recalibration import (
    INTERCEPT,
    PREVALENCE,
    SLOPE,
    recalibrate,
    what_can_be_fitted,
)
from infer.scoring.ensemble import decide
from train.core.performance import Predictions, calibration_intercept, calibration_slope

Floats = npt.NDArray[np.float64]
TRAINED = 0.69  # prevalence of the bundle
ONCE = np.ones((1, 1))


def drawn(
    patients: int, seed: int, slope: float = 0.5, intercept: float = -1.2
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Probabilities of a bundle whose log odds should be slope * log odds + intercept here, and labels."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0.5, 2.5, patients)
    labels = (rng.random(patients) < expit(slope * odds + intercept)).astype(np.int64)
    return expit(odds), labels


def slope_and_intercept(probability: Floats, labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    of, once = Predictions(labels, probability, probability >= 0.5), np.ones((1, len(labels)))
    return float(calibration_slope(of, once)[0]), float(calibration_intercept(of, once)[0])


def test_many_patients_give_what_an_unpenalised_fit_gives() -> None:
    probability, labels = drawn(20_000, seed=0)
    fitted = recalibrate(probability, labels, TRAINED, SLOPE)
    free = LogisticRegression(C=np.inf).fit(logit(probability)[:, None], labels)
    assert fitted.slope == pytest.approx(free.coef_[0, 0], abs=2e-3)
    assert fitted.intercept == pytest.approx(free.intercept_[0], abs=2e-3)


def test_new_patients_are_calibrated() -> None:
    """The damage before, and slope .8 to 1.25 and intercept within .25 after: nine of ten cohorts of 400."""
    unseen, truth = drawn(20_000, seed=999)
    slope, intercept = slope_and_intercept(unseen, truth)
    assert slope < 0.6
    assert intercept < -1
    fits = [recalibrate(*drawn(400, seed), TRAINED, SLOPE) for seed in range(20)]
    after = np.array([slope_and_intercept(fitted.of(unseen), truth) for fitted in fits])
    slope, intercept = after.mean(axis=0)
    assert slope == pytest.approx(1, abs=0.1)
    assert intercept == pytest.approx(0, abs=0.05)
    assert np.mean((after[:, 0] > 0.8) & (after[:, 0] < 1.25) & (np.abs(after[:, 1]) < 0.25)) >= 0.9


def test_the_prevalence_alone_is_a_shift_of_all_log_odds() -> None:
    probability, labels = drawn(25, seed=1)
    fitted = recalibrate(probability, labels, TRAINED, PREVALENCE)
    assert fitted.slope == 1
    assert fitted.intercept == pytest.approx(logit(labels.mean()) - logit(TRAINED))
    assert recalibrate(probability, labels, float(labels.mean()), PREVALENCE).intercept == 0.0


def test_the_intercept_alone_leaves_the_slope() -> None:
    probability, labels = drawn(5000, seed=2, slope=1.0, intercept=-2.0)
    fitted = recalibrate(probability, labels, TRAINED, INTERCEPT)
    assert fitted.slope == 1.0
    assert fitted.intercept == pytest.approx(-2.0, abs=0.15)


@pytest.mark.parametrize(
    ("malignant", "reactive", "what"),
    [
        (15, 14, PREVALENCE), (20, 9, PREVALENCE), (9, 200, PREVALENCE),
        (20, 10, INTERCEPT), (19, 300, INTERCEPT), (20, 20, SLOPE),
    ],
)  # fmt: skip
def test_what_so_many_patients_allow(malignant: int, reactive: int, what: str) -> None:
    assert what_can_be_fitted(np.array([1] * malignant + [0] * reactive)) == what


def test_patients_who_are_separated_do_not_ask_for_the_impossible() -> None:
    odds = np.concatenate([np.linspace(-2, -0.5, 20), np.linspace(0.5, 2, 20)])
    fitted = recalibrate(expit(odds), np.repeat([0, 1], 20), 0.5, SLOPE)
    assert 1 < fitted.slope < 10
    backwards = recalibrate(expit(odds), np.repeat([1, 0], 20), 0.5, SLOPE)
    assert 0 < backwards.slope < 1  # never reversed


@pytest.mark.parametrize(("sensitivity", "malignant"), [(0.95, 19), (0.98, 49), (0.99, 99)])
def test_too_few_malignant_patients_promise_nothing(sensitivity: float, malignant: int) -> None:
    assert malignant_needed(sensitivity) == malignant
    some = np.concatenate([np.linspace(0.3, 0.9, malignant), [0.2, 0.95]])
    labels = np.array([1] * malignant + [0, 0])
    assert keeping(some, labels, sensitivity) == 0.25  # midway to the reactive patient below
    assert keeping(some[1:], labels[1:], sensitivity) == 0.0


@pytest.mark.parametrize("number", [19, 40, 59, 200])
def test_a_new_malignant_patient_is_rarely_below_the_threshold(number: int) -> None:
    """Over 4,000 cohorts the chance is between k / (n + 1) and (k + 1) / (n + 1), which is 5% at most."""
    values = np.random.default_rng(number).random((4000, number + 1))
    labels = np.ones(number, np.int64)
    missed = np.mean([one[-1] < keeping(one[:-1], labels, 0.95) for one in values])
    allowed = np.floor(0.05 * (number + 1) + 1e-9) / (number + 1)
    noise = 4 * np.sqrt(0.05 * 0.95 / 4000)
    assert allowed <= 0.05
    assert allowed - 1 / (number + 1) - noise < missed < allowed + noise


def test_points_are_chosen_as_asked() -> None:
    probability, labels = drawn(400, seed=3)
    points = choose_points(probability, labels, {"sensitivity-95": 0.95, "rule-out": 0.6})
    assert list(points) == ["balanced", "sensitivity-95", "rule-out"]
    assert points["sensitivity-95"].refer_low <= points["balanced"].refer_low
    assert points["rule-out"].refer_low <= points["balanced"].refer_low
    below = probability[labels == 1] < points["sensitivity-95"].refer_low
    assert below.mean() <= 0.05


def test_cross_fitted_decisions_keep_the_sensitivity() -> None:
    probability, labels = drawn(600, seed=4)
    crossed = cross_fit(probability, labels, TRAINED, SLOPE, USUAL, seed=0)
    for name, wanted in USUAL.items():
        missed = (crossed.decisions[name][:, labels == 1] == "reactive").mean()
        assert missed == pytest.approx(1 - wanted, abs=0.03)
    slope, intercept = slope_and_intercept(crossed.probability[0], labels)
    assert slope == pytest.approx(1, abs=0.15)
    assert intercept == pytest.approx(0, abs=0.15)


def test_a_patients_own_label_has_no_part_in_what_they_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """With folds that no label decides, a patient with the other label gets the same."""
    monkeypatch.setattr("export.adapting.points.StratifiedKFold", KFold)
    probability, labels = drawn(150, seed=5)
    changed = labels.copy()
    changed[3] = 1 - changed[3]
    before, after = (cross_fit(probability, of, TRAINED, SLOPE, {"some": 0.9}, seed=7) for of in (labels, changed))
    np.testing.assert_array_equal(before.probability[:, 3], after.probability[:, 3])
    assert not np.array_equal(before.probability, after.probability)  # others' fits had it
    for name, decisions in before.decisions.items():
        assert decisions[:, 3].tolist() == after.decisions[name][:, 3].tolist()


def test_thresholds_are_chosen_on_the_four_folds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By fitting and choosing for one fold again."""
    monkeypatch.setattr("export.adapting.points.StratifiedKFold", KFold)
    probability, labels = drawn(150, seed=6)
    crossed = cross_fit(probability, labels, TRAINED, SLOPE, {"some": 0.8}, seed=3)
    known, asked = next(iter(KFold(FOLDS, shuffle=True, random_state=3).split(probability)))
    fitted = recalibrate(probability[known], labels[known], TRAINED, SLOPE)
    point = choose_points(fitted.of(probability[known]), labels[known], {"some": 0.8})["some"]
    expected = [decide(float(one), point) for one in fitted.of(probability[asked])]
    assert crossed.decisions["some"][0, asked].tolist() == expected


def test_four_folds_with_too_few_malignant_patients_measure_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([1] * 22 + [0] * 40)
    probability = expit(rng.normal(2 * labels, 1))
    assert list(cross_fit(probability, labels, TRAINED, SLOPE, USUAL, seed=0).decisions) == ["balanced"]
    assert choose_points(probability, labels, USUAL)["sensitivity-95"].refer_low > 0


def test_the_prior_pulls_towards_the_bundle_at_this_prevalence() -> None:
    """Few patients who hardly tell: the fit is near the shift of the prevalence, not near the bundle as it was."""
    rng = np.random.default_rng(1)
    labels = np.array([1] * 10 + [0] * 90)
    probability = expit(rng.normal(0, 0.01, 100) + 1.5)
    fitted = recalibrate(probability, labels, TRAINED, SLOPE)
    assert fitted.of(probability).mean() == pytest.approx(0.1, abs=0.02)
    centre = float(logit(probability).mean())
    shifted = centre + logit(0.1) - logit(TRAINED)
    likeliest = logit(0.1)
    height = fitted.slope * centre + fitted.intercept
    assert min(shifted, likeliest) < height < max(shifted, likeliest)
