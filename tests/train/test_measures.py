"""Quality measures of a SCAN stage compared with slow references; the checks for collapse."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from train.members.scan.measures import (
    Collapse,
    agreement,
    check_classes,
    class_sizes,
    kmeans,
    measure_stage,
    same_patient_share,
    stability,
)


def test_same_patient_share_equals_the_slow_reference() -> None:
    rng = np.random.default_rng(0)
    classes, patient = rng.integers(0, 3, 40), rng.integers(0, 5, 40)
    pairs = [(i, j) for i, j in permutations(range(40), 2) if classes[i] == classes[j]]
    expected = sum(patient[i] == patient[j] for i, j in pairs) / len(pairs)
    assert same_patient_share(classes, patient) == pytest.approx(expected, abs=1e-12)


def test_classes_that_are_patients_are_seen_through() -> None:
    patient = np.repeat(np.arange(4), 10)
    assert same_patient_share(patient, patient) == 1
    mixed = np.tile(np.arange(4), 10)  # every class has the same number from every patient
    assert same_patient_share(mixed, patient) < 0.25
    assert same_patient_share(np.arange(4), np.arange(4)) == 0  # no pairs to compare


def test_agreement_forgets_names_and_chance() -> None:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 5, 600)
    renamed = np.array([3, 0, 4, 1, 2])[classes]
    assert agreement(classes, renamed) == pytest.approx(1)
    assert abs(agreement(classes, rng.permutation(classes))) < 0.02


def test_stability_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(2)
    one, two = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    expected = (1 + 2 * agreement(one, two)) / 3
    assert stability([one, one, two]) == pytest.approx(expected)


def test_kmeans_finds_directions_and_repeats_itself() -> None:
    centres = torch.eye(3).repeat_interleave(20, 0) * torch.rand(60, 1, generator=torch.Generator().manual_seed(0)).add(
        1
    )
    found = kmeans(centres, 3)
    assert agreement(found, np.repeat(np.arange(3), 20)) == pytest.approx(1)
    assert (kmeans(centres, 3) == found).all()


def test_a_stage_is_measured() -> None:
    """Two kinds of cells in four patients; the classes follow the kind, and one is three times as large."""
    kind = np.repeat([0, 1], [30, 10])
    patient = np.tile(np.arange(4), 10)
    noise = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) * 0.01
    embedding = torch.eye(2)[torch.from_numpy(kind)] + noise
    measures = measure_stage("toy", embedding, kind, patient, 3, reference=patient)
    assert (measures.classes, measures.smallest, measures.largest) == (2, 10, 30)
    assert measures.entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert measures.agreement_with_kmeans == pytest.approx(1)
    assert measures.agreement_with_reference == measures.agreement_with_patients
    assert measures.agreement_with_patients < 0.05
    assert measures.neighbours_own_patient_chance == pytest.approx(4 * 10 * 9 / (40 * 39))
    assert measures.class_own_patient == pytest.approx(same_patient_share(kind, patient))
    assert measure_stage("toy", embedding, kind, patient, 3, reference=None).agreement_with_reference is None


def test_an_embedding_that_follows_the_patient_is_seen_through() -> None:
    patient = np.repeat(np.arange(4), 10)
    noise = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * 0.01
    measures = measure_stage("toy", torch.eye(4)[torch.from_numpy(patient)] + noise, patient, patient, 5, None)
    assert measures.neighbours_own_patient == 1
    assert measures.agreement_with_patients == pytest.approx(1)


def test_sizes_of_every_head() -> None:
    chosen = torch.tensor([[0, 1, 1, 1], [2, 2, 0, 2]])
    probabilities = torch.nn.functional.one_hot(chosen, 3).float()  # (2 heads, 4 pictures, 3 classes)
    assert class_sizes(probabilities).tolist() == [[1, 3, 0], [1, 0, 3]]


def test_a_class_that_vanished_is_named() -> None:
    with pytest.raises(Collapse, match="1 of 2 classes have no pictures left, the first is class 2"):
        check_classes(np.array([5, 0, 0]), np.array([True, False, True]), 0.5)
    check_classes(np.array([5, 0, 5]), np.array([True, False, True]), 0.5)  # class 1 was already empty


def test_a_class_that_swallows_the_others_is_named() -> None:
    wanted = np.ones(3, dtype=bool)
    with pytest.raises(Collapse, match="class 1 contains 60% of the pictures"):
        check_classes(np.array([2, 6, 2]), wanted, 0.5)
    check_classes(np.array([3, 5, 2]), wanted, 0.5)
