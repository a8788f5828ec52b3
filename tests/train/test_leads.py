"""Leads: their features are compared with slow references, and each finds the signal it is made for."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from infer.errors import UsageError
from tests.train.bags import make_bags
from tests.train.scan_files import write_classes, write_scan
from tests.train_fixtures import TrainedRun
from train.data.bags import Bags, load_crops
from train.data.whose_pictures import BLANK, OWN, SWAPPED
from train.evaluation.nested.deep_leads import DEEP_GATES, deep_ensembles, deep_leads
from train.evaluation.nested.leads import (
    _likeness,
    class_shares,
    clinical_features,
    clinical_interplay,
    embedded,
    homogeneity,
)
from train.evaluation.nested.models import GATES, OWN_MIXTURE, all_leads, all_members, ensembles_with_leads
from train.members.candidate import Candidate
from train.members.features import Features
from train.members.naive_bayes import OWN_NETWORK
from train.members.recipes import SMALL, BayesRecipe, Recipe, adapted

PATIENTS, PICTURES = 60, 8
OWNER = np.repeat(np.arange(PATIENTS), PICTURES)
BLANK_FEATURES = np.zeros(40, dtype=np.float32)


@pytest.fixture
def bags() -> Bags:
    rng = np.random.default_rng(7)  # not the seed with which make_bags draws sex
    return make_bags(rng.integers(0, 2, PATIENTS).tolist(), [PICTURES] * PATIENTS)


def area(member: Candidate, bags: Bags, sight: str = OWN) -> float:
    """Predictions for the second half of the patients, trained on the first."""
    half = np.arange(PATIENTS // 2)
    rest = half + PATIENTS // 2
    found = member.predict(half, rest, Path("unused"))
    return float(roc_auc_score(bags.labels[rest], found[sight] if isinstance(found, Mapping) else found))


def noise(seed: int = 1, features: int = 40) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=(PATIENTS * PICTURES, features)).astype(np.float32)


def test_a_mean_that_tells_is_found_and_noise_is_not(bags: Bags) -> None:
    pictures = noise()
    nothing = Features(pictures.copy(), BLANK_FEATURES)
    assert area(embedded(bags, "noise", nothing, {}), bags) < 0.75
    pictures[:, :5] += 2 * bags.labels[OWNER, None]
    telling = embedded(bags, "mean", Features(pictures, BLANK_FEATURES), {})
    assert area(telling, bags) > 0.95
    assert abs(area(telling, bags, SWAPPED) - 0.5) < 0.25
    assert abs(area(telling, bags, BLANK) - area(embedded(bags, "noise", nothing, {}), bags)) < 0.25


def test_a_dispersion_that_tells_is_found_where_it_is_looked_at(bags: Bags) -> None:
    pictures = noise()
    pictures[:, :20] *= 1 + 2 * bags.labels[OWNER, None]
    assert area(embedded(bags, "both", Features(pictures, BLANK_FEATURES), {}, dispersion=True), bags) > 0.95
    assert area(embedded(bags, "mean", Features(pictures, BLANK_FEATURES), {}), bags) < 0.85


def test_an_interplay_of_count_and_age_is_found(bags: Bags) -> None:
    """Malignant if both are high or both are low: linear terms carry no information."""
    clinical = clinical_features(bags)
    labels = (clinical[:, 1] * clinical[:, 2] > np.median(clinical[:, 1] * clinical[:, 2])).astype(np.int64)
    assert area(clinical_interplay(replace(bags, labels=labels)), replace(bags, labels=labels)) > 0.95


def test_class_shares_that_tell_are_found(bags: Bags) -> None:
    rng = np.random.default_rng(3)
    classes = np.where(rng.random(len(OWNER)) < 0.8, bags.labels[OWNER], rng.integers(2, 5, len(OWNER)))
    assert area(class_shares(bags, "shares", classes.astype(np.int64), 5, {}), bags) > 0.95


def test_alike_cells_are_found(bags: Bags) -> None:
    """Cells of a clone share a direction, which differs between patients."""
    rng = np.random.default_rng(4)
    own = rng.normal(size=(PATIENTS, 40))[OWNER]
    pictures = (noise() + 2 * own * bags.labels[OWNER, None]).astype(np.float32)
    assert area(homogeneity(bags, "alike", pictures, {}), bags) > 0.95
    assert area(embedded(bags, "mean", Features(pictures, BLANK_FEATURES), {}), bags) < 0.8


def test_likeness_equals_the_slow_reference() -> None:
    pictures = np.random.default_rng(0).normal(size=(6, 4))
    unit = pictures / np.linalg.norm(pictures, axis=1, keepdims=True)
    pairs = [float(unit[i] @ unit[j]) for i, j in combinations(range(6), 2)]
    expected = [np.mean(pairs), np.quantile(pairs, 0.1), np.std(pairs)]
    np.testing.assert_allclose(_likeness(torch.from_numpy(unit)), expected, rtol=1e-6)
    assert _likeness(torch.ones(1, 4)).tolist() == [1, 1, 0]


def test_names_and_numbers_make_different_members(bags: Bags) -> None:
    pictures = noise()
    one, other = (embedded(bags, "x", Features(pictures, BLANK_FEATURES), {"weights": weights}) for weights in "ab")
    assert one.facts != other.facts
    assert one.facts != embedded(bags, "x", Features(pictures, BLANK_FEATURES), {"weights": "a"}, dispersion=True).facts


def test_ensembles_and_gates_are_of_members_that_are_there(trained_run: TrainedRun, tmp_path: Path) -> None:
    """A misspelt name would otherwise be noticed only after hours of training."""
    run, cpu = tmp_path / "run", torch.device("cpu")
    shutil.copytree(trained_run.run, run)  # the embedding is cached in the run folder
    bags = load_crops(run)
    write_scan(run)
    write_classes(run, bags, 0)
    members = all_members(bags, run, SMALL, 0, cpu, inductive=False) + all_leads(bags, run, SMALL, 0, cpu)
    names = [str(member) for member in members + deep_leads(bags, 0, cpu)]
    assert len(set(names)) == len(names) == 3 + 4 + 13 + 3
    stacks, gates = ensembles_with_leads() | deep_ensembles(), GATES | DEEP_GATES
    for of in [*(stack.members for stack in stacks.values()), *gates.values()]:
        assert set(of) <= set(names)
    assert not set(names) & (set(stacks) | set(gates))


def test_the_networks_of_their_own_are_known_by_what_they_were_trained_with(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    """SCAN with its own network by its classes and naive Bayes, the mixture by recipe and seed."""
    run, cpu = tmp_path / "run", torch.device("cpu")
    shutil.copytree(trained_run.run, run)
    bags = load_crops(run)
    write_scan(run)

    def facts(recipe: Recipe, seed: int, cell_class: int) -> list[str]:
        write_classes(run, bags, cell_class)
        found = {str(member): member for member in all_leads(bags, run, recipe, seed, cpu)}
        own = [found[name] for name in (OWN_NETWORK, OWN_MIXTURE, f"{OWN_MIXTURE}, turned")]
        return [json.dumps(member.facts, default=str) for member in own]

    plain = facts(SMALL, 0, 0)
    for others, changed in (
        (facts(SMALL, 1, 0), [False, True, True]),
        (facts(adapted(SMALL, 3, None), 0, 0), [False, True, True]),
        (facts(replace(SMALL, bayes=BayesRecipe(0.5)), 0, 0), [True, False, False]),
        (facts(replace(SMALL, experts=replace(SMALL.experts, dropout=0.1)), 0, 0), [False, False, False]),
        (facts(SMALL, 0, 1), [True, False, False]),
    ):
        assert [one != other for one, other in zip(plain, others, strict=True)] == changed


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("scan.safetensors", "has no SCAN network"),
        ("classes.csv", "has no cell classes"),
        ("fusion.json", "not the SCAN that gave them"),
    ],
)
def test_leads_need_a_scan_of_the_run(trained_run: TrainedRun, tmp_path: Path, missing: str, said: str) -> None:
    run, cpu = tmp_path / "run", torch.device("cpu")
    shutil.copytree(trained_run.run, run)
    bags = load_crops(run)
    write_scan(run)
    write_classes(run, bags, 0)
    (run / "scan" / missing).unlink()
    with pytest.raises(UsageError, match=f"{said}.*Run `python -m train scan`"):
        all_leads(bags, run, SMALL, 0, cpu)
