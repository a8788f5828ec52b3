"""A lower lymphocyte count never raises the odds of malignant, whatever the training patients."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.naive_bayes import GaussianNB

from train.members.count_floor import FlooredBayes, count_floor, widened

COUNTS = np.linspace(0, 400, 400_001)


@pytest.mark.parametrize(
    ("mean", "variance"),
    [
        ((5.0, 36.0), (1.7, 3300.0)),
        ((5.0, 36.0), (200.0, 3300.0)),
        ((9.0, 8.0), (1.0, 4.0)),
        ((300.0, 2.0), (9.0, 10.0)),
    ],
)
def test_the_floor_is_where_the_odds_are_lowest(mean: tuple[float, float], variance: tuple[float, float]) -> None:
    floor = count_floor(np.array(mean), np.array(variance))
    reactive, malignant = (norm.logpdf(COUNTS, m, np.sqrt(v)) for m, v in zip(mean, variance, strict=True))
    inside = COUNTS[np.argmin(malignant - reactive)]
    assert floor == pytest.approx(inside, abs=1e-3) or (floor > 400 and inside == 400)


@pytest.mark.parametrize(
    ("mean", "variance"),
    [
        ((5.0, 36.0), (9.0, 9.0)),  # odds rise everywhere
        ((5.0, 36.0), (10.0, 9.0)),  # odds have a maximum, but no minimum
        ((0.1, 36.0), (9.0, 10.0)),  # the minimum is at a count below 0
    ],
)
def test_no_floor(mean: tuple[float, float], variance: tuple[float, float]) -> None:
    assert count_floor(np.array(mean), np.array(variance)) == 0.0


def test_a_low_count_does_not_make_a_patient_more_malignant() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * 60)
    count = np.where(labels == 1, rng.lognormal(2.8, 1.0, 120), rng.normal(5.0, 1.2, 120))
    clinical = np.stack([rng.integers(0, 2, 120), count, rng.uniform(20, 90, 120)], axis=1)
    model, plain = FlooredBayes(clinical, labels), GaussianNB().fit(clinical, labels)
    asked = np.stack([np.ones(300), np.linspace(0.05, 60, 300), np.full(300, 50.0)], axis=1)
    before = asked.copy()
    found = model.predict(asked)
    assert (np.diff(found) >= 0).all()
    np.testing.assert_array_equal(asked, before)
    rough = plain.predict_proba(asked)[:, 1]
    above = asked[:, 1] > model.floor
    np.testing.assert_array_equal(found[above], rough[above])
    assert rough[0] > 2 * found[0]  # the purpose of the floor
    assert 4 < model.floor < 6


def test_a_class_of_one_sex_does_not_decide_by_it() -> None:
    """The reactive are all men; by their own variance of sex no woman could be reactive."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [5, 15])
    sex = np.where(labels == 0, 0.0, rng.integers(0, 2, 20)).astype(np.float64)
    clinical = np.stack([sex, rng.lognormal(2, 0.4, 20), rng.normal(60, 10, 20)], axis=1)
    woman = np.array([[1.0, 6.0, 55.0]])
    found, plain = FlooredBayes(clinical, labels), GaussianNB().fit(clinical, labels)
    assert plain.predict_proba(woman)[0, 0] < 1e-100
    assert 1e-3 < 1 - found.predict(woman)[0] < 1
    assert found.plain.var_[0, 0] == pytest.approx(sex.var())
    np.testing.assert_array_equal(np.delete(found.plain.var_, 0), np.delete(plain.var_, 0))


def test_values_that_differ_keep_their_variance_and_what_is_alike_in_all_says_nothing() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 2
    clinical = np.stack([labels ^ (np.arange(40) % 3 == 0), rng.lognormal(2, 0.4, 40), rng.normal(60, 10, 40)], axis=1)
    plain = GaussianNB().fit(clinical, labels)
    np.testing.assert_array_equal(FlooredBayes(clinical, labels).plain.var_, plain.var_)
    women = clinical.copy()
    women[:, 0] = 1
    one, other = FlooredBayes(women, labels), women.copy()
    other[:, 0] = 0
    np.testing.assert_allclose(one.predict(women), one.predict(other))


def test_only_the_features_that_are_named_are_looked_at() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(10) % 2
    values = rng.random((10, 4))
    values[labels == 0, 0] = values[labels == 1, 3] = 0.5
    model = GaussianNB().fit(values, labels)
    before = model.var_.copy()
    assert widened(model, values, 3).var_[0, 0] == pytest.approx(values[:, 0].var())
    np.testing.assert_array_equal(model.var_[1, 3], before[1, 3])
    np.testing.assert_array_equal(widened(GaussianNB().fit(values, labels), values, 0).var_, before)


def test_patients_who_do_not_differ_at_all_are_judged_by_their_classes_sizes() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    model = widened(GaussianNB().fit(np.ones((6, 2)), labels), np.ones((6, 2)), 0)
    np.testing.assert_allclose(model.predict_proba([[1.0, 1.0], [4.0, 0.0]])[:, 1], 2 / 3)
