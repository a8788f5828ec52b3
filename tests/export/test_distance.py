"""The distance of features: by hand, against scikit-learn, and what a patient must not be in its own reference."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from export.members.distance import COMPONENTS, distances, fit_distance, held_out_distances
from train.core.arrays import Floats


def patients(count: int = 60, features: int = 40, seed: int = 0) -> Floats:
    """Means that vary along five directions, and a little along all."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(5, features))
    return rng.normal(size=(count, 5)) @ directions + 0.1 * rng.normal(size=(count, features)) + 3


def test_distances_by_scikit_learn() -> None:
    means = patients()
    reference = PCA(20).fit(means)  # a third of the patients
    others = patients(10, seed=1)
    along = reference.transform(others)
    rest = others - reference.inverse_transform(along)
    within, outside = distances(fit_distance(means), others)
    np.testing.assert_allclose(within, np.sqrt((along**2 / reference.explained_variance_).mean(axis=1)), rtol=1e-4)
    np.testing.assert_allclose(outside, np.sqrt((rest**2).mean(axis=1)), rtol=1e-3)


def test_by_hand() -> None:
    """Three patients on a line through (0, 0), 1 apart: variance 1 along it."""
    network = fit_distance(np.array([[-1.0, 0], [0, 0], [1, 0]]))
    within, outside = distances(network, np.array([[0.0, 0], [2, 0], [0, 4], [-3, -4]]))
    assert within == pytest.approx([0, 2, 0, 3], abs=1e-6)
    assert outside == pytest.approx([0, 0, 4 / np.sqrt(2), 4 / np.sqrt(2)], abs=1e-6)


@pytest.mark.parametrize(("count", "kept"), [(3, 1), (30, 10), (90, 30), (200, COMPONENTS)])
def test_three_patients_for_a_component(count: int, kept: int) -> None:
    assert fit_distance(patients(count)).directions.shape == (40, kept)


def test_a_patient_is_not_in_its_own_reference() -> None:
    """One patient far from all: a fit that has seen it takes its direction for usual."""
    means = patients()
    means[7] += 100 * np.eye(40)[3]
    _, held_out = held_out_distances(means)
    _, seen = distances(fit_distance(means), means)
    assert held_out[7] == held_out.max() > 100 * seen[7]
    assert np.median(held_out) > np.median(seen)


def test_held_out_distances_are_the_same_every_time() -> None:
    first, second = (held_out_distances(patients()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_features_that_never_vary_do_no_harm() -> None:
    means = np.hstack([patients(), np.zeros((60, 3))])
    within, outside = distances(fit_distance(means), means)
    assert np.isfinite(within).all()
    assert np.isfinite(outside).all()
    with torch.inference_mode():
        same = fit_distance(np.ones((9, 4)))(torch.ones(1, 4))
    assert [float(value) for value in same] == [0, 0]
