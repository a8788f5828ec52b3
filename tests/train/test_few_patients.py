"""With the fewest patients there may be, no stage that is fitted on probabilities fails."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from infer.scoring.ensemble import decide
from train.core.arrays import Floats, Labels
from train.core.metrics import summary
from train.ensemble.fit import choose_pull, combine, fit_ensemble, fit_operating_points
from train.members.gating import choose_gate, no_gate

NAMES = ("one", "two", "three", "four")
Draw = Callable[[np.random.Generator, Labels], Floats]
MEMBERS: dict[str, Draw] = {
    "random": lambda rng, labels: rng.random(len(labels)),
    "constant": lambda rng, labels: np.full(len(labels), 0.5),
    "certain": lambda rng, labels: labels.astype(np.float64),
    "certain and wrong": lambda rng, labels: (1 - labels).astype(np.float64),
    "almost constant, one apart": lambda rng, labels: np.where(np.arange(len(labels)) == 3, 1.0, 0.7 + 1e-9 * labels),
    "few values": lambda rng, labels: rng.choice([0.0, 0.5, 1.0], len(labels)),
}


def folds_of(labels: Labels, number: int, seed: int) -> Labels:
    folds = np.empty(len(labels), np.int64)
    for fold, (_, held_out) in enumerate(
        StratifiedKFold(number, shuffle=True, random_state=seed).split(labels, labels)
    ):
        folds[held_out] = fold
    return folds


@pytest.mark.parametrize("malignant", [5, 15])
@pytest.mark.parametrize("kind", MEMBERS)
@pytest.mark.parametrize("seed", range(3))
def test_an_ensemble_of_twenty_patients(malignant: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1, 0], [malignant, 20 - malignant]))
    folds = folds_of(labels, 5, seed)
    members = np.stack([MEMBERS[kind](rng, labels), *(rng.random((2, 20))), MEMBERS[kind](rng, labels)])
    for fold in range(5):
        rest = folds != fold
        pull, loss = choose_pull(members[:, rest], labels[rest], folds[rest], NAMES)
        assert np.isfinite(loss)
        ensemble = fit_ensemble(members[:, rest], labels[rest], NAMES, pull)
        crossed = combine(members[:, ~rest], ensemble)
        assert ((crossed >= 0) & (crossed <= 1)).all()
        for point in ensemble.operating_points.values():
            assert 0 <= point.refer_low <= point.refer_high <= 1
            assert {decide(float(value), point) for value in crossed} <= {"malignant", "reactive", "refer"}
    figures = summary(labels, combine(members, fit_ensemble(members, labels, NAMES, 0.0)), rng.lognormal(2, 1, 20))
    assert all(np.isfinite(value) for value in figures.values())


@pytest.mark.parametrize("kind", MEMBERS)
def test_operating_points_of_ten_patients(kind: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(10) % 2
    for point in fit_operating_points(MEMBERS[kind](rng, labels), labels).values():
        assert 0 <= point.refer_low <= point.refer_high <= 1


@pytest.mark.parametrize("kind", MEMBERS)
@pytest.mark.parametrize("fewest", [2, 4])  # of a class: in the nested protocol, and in a fold of five
def test_a_gate_of_few_patients(kind: str, fewest: int) -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([1, 0], [fewest, 12])
    experts = np.stack([MEMBERS[kind](rng, labels), rng.random(len(labels))])
    folds, clinical = folds_of(labels, 3 if fewest > 2 else 2, 0), rng.normal(size=(len(labels), 3))
    for gate in (choose_gate(experts, clinical, labels, folds), no_gate(experts, labels, folds)):
        assert np.isfinite(gate.log_loss)
        mixed = gate.gate.mixed(experts, clinical)
        assert ((mixed >= 0) & (mixed <= 1)).all()
