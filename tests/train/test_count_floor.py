"""A lower lymphocyte count never raises the odds of malignant, whatever the training patients."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.naive_bayes import GaussianNB

from train.members.count_floor import FlooredBayes, count_floor

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
