"""The gate over two models: it learns which model to trust for whom, as far as its regularisation allows."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import log_loss

from infer.scoring.ensemble import calibrated_logit
from train.core.arrays import Floats, Indices
from train.core.calibration import fit_calibration
from train.ensemble.fit import best_threshold
from train.evaluation.nested.stacking import score_gated
from train.members.gating import GATE_PULLS, Gate, choose_gate, fit_gate, no_gate


def cohort(patients: int = 400, seed: int = 0) -> tuple[Floats, Floats, Indices]:
    """The first expert is right about women, the second about men; otherwise both guess."""
    rng = np.random.default_rng(seed)
    truth, sex = rng.normal(0, 3, patients), rng.integers(0, 2, patients)
    labels = (rng.random(patients) < expit(truth)).astype(np.int64)
    guess = rng.normal(0, 3, (2, patients))
    experts = expit(np.stack([np.where(sex == 1, truth, guess[0]), np.where(sex == 0, truth, guess[1])]))
    clinical = np.stack([sex, rng.normal(size=patients), rng.normal(size=patients)], axis=1)
    return experts, clinical, labels


def test_it_finds_whom_to_believe_about_whom() -> None:
    experts, clinical, labels = cohort()
    gate = fit_gate(experts, clinical, labels, 0.001)
    others, of_others, labels_of_others = cohort(seed=1)
    share = gate.shares(others, of_others)
    women = of_others[:, 0] == 1
    assert share[women].mean() > 0.8
    assert share[~women].mean() < 0.2
    mixed = log_loss(labels_of_others, gate.mixed(others, of_others))
    assert mixed < 0.97 * min(log_loss(labels_of_others, row) for row in (*others, others.mean(axis=0)))


def test_pulled_hard_enough_it_is_the_mean_of_both() -> None:
    experts, clinical, labels = cohort()
    gate = fit_gate(experts, clinical, labels, 1e4)
    np.testing.assert_allclose(gate.shares(experts, clinical), 0.5, atol=1e-3)
    smooth = [expit(one.slope * logit(row) + one.intercept) for row, one in zip(experts, gate.calibration, strict=True)]
    np.testing.assert_allclose(gate.mixed(experts, clinical), np.mean(smooth, axis=0), atol=1e-3)


def test_its_weights_are_those_of_least_cost() -> None:
    """Any small step increases the cost, which is computed patient by patient here."""
    experts, clinical, labels = cohort(60)
    pull, gate = 0.05, fit_gate(*cohort(60), 0.05)

    def cost(weights: Floats) -> float:
        total, of = 0.0, Gate(gate.calibration, weights)
        for patient in range(60):
            one = slice(patient, patient + 1)
            probability = of.mixed(experts[:, one], clinical[one])[0]
            total -= np.log(probability if labels[patient] else 1 - probability)
        return float(total / 60 + pull * np.sum(weights**2))

    least = cost(gate.weights)
    for index in range(6):
        for step in (-0.05, 0.05):
            assert cost(gate.weights + step * np.eye(6)[index]) > least


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pull_and_thresholds_come_from_inner_folds_that_did_not_fit_the_gate(seed: int) -> None:
    experts, clinical, labels = cohort(200, seed)
    training, held_out = slice(0, 150), slice(150, 200)
    inner, values, known, folds = experts[:, training], clinical[training], labels[training], np.arange(150) % 3
    crossed = {pull: np.empty(150) for pull in GATE_PULLS}
    for pull, probability in crossed.items():
        for fold in range(3):
            rest = folds != fold
            gate = fit_gate(inner[:, rest], values[rest], known[rest], pull)
            probability[~rest] = gate.mixed(inner[:, ~rest], values[~rest])
    losses = {pull: log_loss(known, probability) for pull, probability in crossed.items()}
    best = min(losses, key=losses.__getitem__)
    scored = score_gated(inner, values, known, folds, experts[:, held_out], clinical[held_out])
    assert scored.chosen["pull"] == best
    assert scored.chosen["inner_log_loss"] == pytest.approx(losses[best])
    expected = fit_gate(inner, values, known, best).mixed(experts[:, held_out], clinical[held_out])
    np.testing.assert_allclose(scored.probability, expected)
    assert scored.called.tolist() == (expected >= best_threshold(crossed[best], known)).tolist()
    malignant = np.sort(crossed[best][known == 1])
    for percent, missed in ((95, 0.05), (98, 0.02)):
        floor = malignant[int(missed * len(malignant))]
        assert scored.sent_on[percent].tolist() == (expected >= floor).tolist()


def test_without_a_gate_the_first_model_judges_alone_and_its_loss_is_of_patients_left_out() -> None:
    experts, _, labels = cohort(120)
    folds = np.arange(120) % 3
    found = no_gate(experts, labels, folds)
    alone = expit(calibrated_logit(experts[0], fit_calibration(experts[0], labels)))
    np.testing.assert_allclose(found.gate.mixed(experts, np.zeros((120, 3))), alone, rtol=1e-12)
    crossed = np.empty(120)
    for patient in range(120):
        rest = folds != folds[patient]
        calibration = fit_calibration(experts[0, rest], labels[rest])
        crossed[patient] = expit(calibrated_logit(experts[0, patient : patient + 1], calibration))[0]
    np.testing.assert_allclose(found.crossed, crossed)
    assert found.log_loss == pytest.approx(log_loss(labels, crossed))


def test_a_gate_that_is_of_no_use_loses_against_none() -> None:
    """The second model guesses: no gate is better than one fitted on few patients."""
    rng = np.random.default_rng(5)
    truth = rng.normal(0, 3, 60)
    labels = (rng.random(60) < expit(truth)).astype(np.int64)
    experts = expit(np.stack([truth, rng.normal(0, 3, 60)]))
    clinical, folds = rng.normal(size=(60, 3)), np.arange(60) % 3
    assert no_gate(experts, labels, folds).log_loss < choose_gate(experts, clinical, labels, folds).log_loss
    experts, clinical, labels = cohort(300)
    folds = np.arange(300) % 3
    assert no_gate(experts, labels, folds).log_loss > choose_gate(experts, clinical, labels, folds).log_loss
