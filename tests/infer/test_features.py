import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.members.features import base_features, cell_classes, with_outliers
from infer.members.naive_bayes import NaiveBayes, malignant_probability
from tests.infer.manifests import CLASSES, make_naive_bayes

CLINICAL = np.array([1.0, 11.2, 69.0])


def slow_features(clinical: Sequence[float], cell_classes: Sequence[int], classes: int) -> list[float]:
    """Section 2.2 of the report, implemented literally."""
    shares = [sum(1 for cell in cell_classes if cell == wanted) / len(cell_classes) for wanted in range(classes)]
    entropy = 0.0
    variety = 0
    for share in shares:
        entropy -= share * math.log(share + 1e-3)
        variety += share > 0
    return [*clinical, *shares, entropy, variety]


def slow_probability(base: Sequence[float], model: NaiveBayes) -> float:
    """Bayes' rule with the product of the densities, after a low count was raised to the floor."""
    base = [base[0], max(base[1], model.count_floor), *base[2:]]
    outliers = sum(value > quantile for value, quantile in zip(base, model.quantiles, strict=True))
    features = [*base, outliers]
    joint = list(model.prior)
    for row in (0, 1):
        for index, value in enumerate(features):
            scaled = (value - model.feature_low[index]) / model.feature_range[index]
            mean, variance = model.mean[row][index], model.variance[row][index]
            joint[row] *= math.exp(-((scaled - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    return joint[1] / (joint[0] + joint[1])


BAGS = st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=60)


@given(BAGS)
def test_features_are_those_of_the_slow_reference(bag: list[int]) -> None:
    found = base_features(CLINICAL, np.array(bag), CLASSES)
    np.testing.assert_allclose(found, slow_features(CLINICAL.tolist(), bag, CLASSES), rtol=1e-12)


def test_features_by_hand() -> None:
    found = base_features(np.array([1.0, 5.0, 50.0], np.float32), np.array([0, 0, 0, 2]), 3)
    entropy = -(0.75 * math.log(0.751) + 0.25 * math.log(0.251))
    np.testing.assert_allclose(found, [1, 5, 50, 0.75, 0, 0.25, entropy, 2], rtol=1e-15)
    assert found.dtype == np.float64


@given(BAGS, st.integers(0, 2**32 - 1))
def test_the_order_of_the_pictures_does_not_matter(bag: list[int], seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(bag)
    np.testing.assert_array_equal(
        base_features(CLINICAL, np.array(bag), CLASSES), base_features(CLINICAL, shuffled, CLASSES)
    )


def test_outliers_lie_above_their_quantile_not_on_it() -> None:
    base = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    found = with_outliers(base, np.array([0.5, 2.0, 2.5]))
    np.testing.assert_array_equal(found, [[1, 2, 3, 2], [0, 0, 0, 0]])


def test_naive_bayes_by_hand() -> None:
    """Scaled features (0.5, 0, 1): on the malignant mean, and at squared distance 1.25 from the reactive one."""
    model = NaiveBayes(
        count_floor=0.0,
        quantiles=[0.5, 0.5],
        feature_low=[0.0, 0.0, 0.0],
        feature_range=[2.0, 1.0, 1.0],
        prior=[0.25, 0.75],
        mean=[[0.0, 0.0, 0.0], [0.5, 0.0, 1.0]],
        variance=[[1.0] * 3, [1.0] * 3],
    )
    malignant = 0.75 / (0.75 + 0.25 * math.exp(-0.625))
    assert float(malignant_probability(np.array([1.0, 0.0]), model)) == pytest.approx(malignant, abs=1e-14)


@given(BAGS)
def test_naive_bayes_is_that_of_the_slow_reference(bag: list[int]) -> None:
    model = make_naive_bayes()
    base = base_features(np.array([1.0, 0.4, 0.7]), np.array(bag), CLASSES)
    expected = slow_probability(base.tolist(), model)
    assert float(malignant_probability(base, model)) == pytest.approx(expected, rel=1e-9)


def test_a_count_below_the_floor_is_read_as_the_floor() -> None:
    model = msgspec.structs.replace(make_naive_bayes(), count_floor=0.3)
    counts = np.array([0.01, 0.1, 0.3, 0.35, 0.6])
    base = np.stack([base_features(np.array([1.0, count, 0.7]), np.array([0, 3]), CLASSES) for count in counts])
    before = base.copy()
    found = malignant_probability(base, model)
    assert found[0] == found[1] == found[2] != found[3]
    np.testing.assert_array_equal(base, before)  # the caller's array is unchanged
    plain = malignant_probability(base, msgspec.structs.replace(model, count_floor=0.0))
    np.testing.assert_array_equal(found[2:], plain[2:])
    assert plain[0] != plain[1]


def test_patients_are_scored_each_for_itself() -> None:
    model = make_naive_bayes()
    bags = [[0, 1, 2], [3] * 9, list(range(15))]
    rows = [base_features(CLINICAL, np.array(bag), CLASSES) for bag in bags]
    together = malignant_probability(np.stack(rows), model)
    np.testing.assert_array_equal(together, [float(malignant_probability(row, model)) for row in rows])


@pytest.mark.parametrize("clinical", [[0.0, 1e-6, 0.0], [1.0, 1000.0, 120.0], [0.0, 1e12, -1e12]])
@pytest.mark.parametrize("variance", [1e-9, 1.0, 1e9])
def test_extreme_inputs_give_a_finite_probability(clinical: list[float], variance: float) -> None:
    plain = make_naive_bayes()
    rows = [[variance] * len(row) for row in plain.variance]
    model = msgspec.structs.replace(plain, variance=rows)
    for bag in ([0], [7] * 200, list(range(15)) * 10):
        base = base_features(np.array(clinical), np.array(bag), CLASSES)
        assert np.isfinite(base).all()
        assert 0.0 <= float(malignant_probability(base, model)) <= 1.0


def test_the_most_probable_class_decides_whatever_is_fused_with_others() -> None:
    probabilities = np.array([[0.4, 0.0, 0.3, 0.3], [0.1, 0.2, 0.3, 0.4]])
    classes, confidence = cell_classes(probabilities, np.array([0, 1, 2, 2]))
    assert classes.tolist() == [0, 2]  # with sums, the first picture would be class 2, by 0.6 to 0.4
    np.testing.assert_allclose(confidence, [0.4, 0.7])
