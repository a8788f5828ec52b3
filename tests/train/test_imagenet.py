"""The ImageNet member: the network agrees with scikit-learn's pipeline, and no held-out patient is used in a fit."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler

from infer.bundle.manifest import Calibration
from infer.scoring.ensemble import calibrated_logit
from tests.train.bags import make_bags
from train.core.arrays import Floats, Indices
from train.core.checkpoint import save_network
from train.data.bags import Bags
from train.data.whose_pictures import BLANK, NOBODY, OWN, SWAPPED, whose_pictures
from train.members import imagenet, linear
from train.members.count_floor import FlooredBayes
from train.members.embedding import Magnification
from train.members.features import Features, embed_pictures
from train.members.gating import OPEN, ChosenGate, Gate, choose_gate
from train.members.imagenet import (
    LIMIT,
    MAGNIFICATION,
    fit_and_predict,
    fit_gated,
    fit_network,
    load_imagenet,
    numbers,
    train_imagenet,
)
from train.members.linear import affine, fit_fixed, fit_logistic
from train.members.recipes import SMALL
from train.members.registry import digests

CPU = torch.device("cpu")
FLAT = Calibration(1.0, 0.0)
PATIENTS = 24
EVERYBODY = np.arange(PATIENTS)


@pytest.fixture(scope="module")
def bags() -> Bags:
    """Counts determine some of the labels, darker pictures the others."""
    made = make_bags([0, 1] * (PATIENTS // 2), [2, 3] * (PATIENTS // 2), size=112)
    made.clinical[:12, 1] = [5, 60] * 6
    for patient, (start, stop) in enumerate(made.ranges()):
        made.crops[start:stop] //= 3 if made.labels[patient] else 1
    return made


@pytest.fixture(scope="module")
def seen(bags: Bags, tmp_path_factory: pytest.TempPathFactory) -> Features:
    return embed_pictures(bags, tmp_path_factory.mktemp("run"), CPU, MAGNIFICATION)


@pytest.fixture(scope="module")
def means(bags: Bags, seen: Features) -> Floats:
    return seen.means(bags)


def judged(bags: Bags, means: Floats, training: Indices, asked: Indices) -> Floats:
    return fit_and_predict(bags, means, training, asked)[OWN]


def test_the_network_gives_what_the_regression_gives(bags: Bags, seen: Features, tmp_path: Path) -> None:
    training, means = EVERYBODY[:18], seen.means(bags)
    expected = judged(bags, means, training, EVERYBODY)
    save_network(tmp_path / "a.safetensors", fitted := fit_network(bags, means, training), fitted.dimensions)
    network = load_imagenet(tmp_path / "a.safetensors")
    with torch.inference_mode():
        added = bags.means(network.pictures(torch.from_numpy(seen.pictures))[:, None].numpy())[:, 0]
        found = network.head(torch.from_numpy(added).float(), torch.from_numpy(bags.clinical))
    np.testing.assert_allclose(found.probability, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1
    assert np.ptp(added) > 0.1
    assert added[training].mean() == pytest.approx(0, abs=1e-4)


def test_a_regression_is_what_scikit_learn_makes_of_its_steps() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 3 + 12)) * np.arange(1, 16), rng.integers(0, 2, 60)
    model = fit_logistic(features, labels, 12)
    chosen = model.best_params_
    reduced = PCA(chosen["features__reduced__components"], svd_solver="full").fit(features[:, 3:])
    parts = [features[:, :3], reduced.transform(features[:, 3:])]
    by_hand = np.concatenate([StandardScaler().fit_transform(part) for part in parts], axis=1)
    reference = LogisticRegression(C=chosen["logistic__C"], max_iter=1000).fit(by_hand, labels)
    np.testing.assert_allclose(model.decision_function(features), reference.decision_function(by_hand), atol=1e-6)
    weights, constant = affine(model, 15)
    np.testing.assert_allclose(features @ weights + constant, reference.decision_function(by_hand), atol=1e-6)


@pytest.mark.parametrize("plain", [0, 3])
def test_a_fixed_regression_is_what_scikit_learn_makes_of_its_steps(plain: int) -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, plain + 40)) * np.arange(1, plain + 41), rng.integers(0, 4, 60) // 3
    model = fit_fixed(features, labels, 40)
    reduced = PCA(30, whiten=True, svd_solver="full").fit_transform(features[:, plain:])
    clinical = [StandardScaler().fit_transform(features[:, :plain])] if plain else []
    by_hand = np.concatenate([*clinical, reduced], axis=1)
    weights = np.where(labels == 1, 30 / labels.sum(), 30 / (60 - labels.sum()))  # both classes weigh alike
    reference = LogisticRegression(C=0.03, max_iter=1000).fit(by_hand, labels, weights)
    np.testing.assert_allclose(model.decision_function(features), reference.decision_function(by_hand), atol=1e-6)
    coefficients, constant = affine(model, plain + 40)
    np.testing.assert_allclose(features @ coefficients + constant, reference.decision_function(by_hand), atol=1e-6)


def test_a_feature_that_almost_never_fires_moves_nobody_far() -> None:
    """Standardised, such a feature had weights over 100 on real cells: another stain may make it fire."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 40)), np.arange(60) % 2
    features[:, 7] = 1e-5 * labels
    weights, _ = affine(fit_fixed(features, labels, 40), 40)
    assert abs(weights[7]) < np.abs(weights).max()


def test_a_patient_who_is_there_twice_blows_nothing_up() -> None:
    rng = np.random.default_rng(0)
    few, others = rng.normal(size=(20, 1280)), rng.normal(size=(5, 1280))
    few[7] = few[6]
    assert np.abs(fit_fixed(few, np.arange(20) % 2, 1280).decision_function(others)).max() < 3


def test_what_an_earlier_version_fitted_is_fitted_again(bags: Bags, seen: Features, tmp_path: Path) -> None:
    with patch.object(imagenet, "embed_pictures", lambda *_: seen):
        with patch.object(linear, "FIXED_STRENGTH", 0.5):
            train_imagenet(bags, EVERYBODY % 3, tmp_path, CPU)
        path = tmp_path / "imagenet/full.safetensors"
        path.write_bytes(b"old")
        train_imagenet(bags, EVERYBODY % 3, tmp_path, CPU)
        assert path.read_bytes() != b"old"
        path.write_bytes(b"current")
        train_imagenet(bags, EVERYBODY % 3, tmp_path, CPU)
        assert path.read_bytes() == b"current"


def test_a_fixed_regression_takes_fewer_patients_than_components() -> None:
    rng = np.random.default_rng(0)
    few, others = rng.normal(size=(12, 40)), rng.normal(size=(5, 40))
    found = fit_fixed(few, np.arange(12) % 2, 40).decision_function(others)
    assert np.abs(found).max() < 3  # a direction in which nobody differs would be blown up
    nearly = fit_fixed(few + 1e-9 * rng.normal(size=(12, 40)), np.arange(12) % 2, 40).decision_function(others)
    np.testing.assert_allclose(nearly, found, atol=1e-6)


def test_by_other_pictures_the_same_model_judges(bags: Bags, means: Floats) -> None:
    """Swapped: as if the patients had each other's pictures. Blank: as if everybody had the blank one alone."""
    training, asked = EVERYBODY[:18], EVERYBODY[18:]
    found = fit_and_predict(bags, means, training, asked)
    whose = whose_pictures(asked, bags.patient_ids)[SWAPPED]
    for column, shown in ((SWAPPED, means[whose]), (BLANK, np.repeat(means[NOBODY][None], 6, axis=0))):
        other = means.copy()
        other[asked] = shown
        np.testing.assert_allclose(found[column], judged(bags, other, training, asked))
        assert not np.allclose(found[column], found[OWN])


def test_without_use_the_gate_stays_open(bags: Bags, means: Floats) -> None:
    """Labels that pictures tell and clinical values do not: the picture expert alone, as scikit-learn has it."""
    blind = replace(bags, clinical=np.tile(np.array([1, 9, 60], np.float32), (PATIENTS, 1)))
    blind.clinical[:, 2] += np.arange(PATIENTS) % 5
    telling = means.copy()
    telling[:PATIENTS, :640] += 5 * bags.labels[:, None]
    with patch.object(
        imagenet, "choose_gate", lambda *_: ChosenGate(Gate((FLAT, FLAT), np.zeros(6)), 1, 9.0, np.zeros(0))
    ):
        model = fit_gated(blind, imagenet._features(blind, telling), EVERYBODY)
        network = fit_network(blind, telling, EVERYBODY)
    assert model.gate.weights.tolist() == [OPEN, 0, 0, 0, 0, 0]
    features = imagenet._features(blind, telling)
    alone = model.pictures.predict_proba(features)[:, 1]
    expected = expit(calibrated_logit(alone, model.gate.calibration[0]))
    np.testing.assert_allclose(model.predict(features, blind.clinical), expected, rtol=1e-12)
    with torch.inference_mode():
        added = network.pictures.linear(torch.from_numpy(telling[:PATIENTS]).float()).squeeze(1)
        found = network.head(added, torch.from_numpy(blind.clinical))
    np.testing.assert_allclose(found.probability, expected, atol=1e-5)
    assert found.gate.tolist() == [1.0] * PATIENTS
    assert found.probability.tolist() == found.image.tolist()
    assert not np.allclose(found.image, found.clinical)


def test_out_of_fold_nobody_is_judged_by_a_model_that_saw_it(bags: Bags, seen: Features, tmp_path: Path) -> None:
    folds = EVERYBODY % 3
    with patch.object(imagenet, "embed_pictures", lambda *_: seen):
        table = train_imagenet(bags, folds, tmp_path, CPU)
        others = replace(bags, labels=np.where(folds == 1, 1 - bags.labels, bags.labels))
        turned = train_imagenet(others, folds, tmp_path / "turned", CPU)
    assert list(table.columns) == ["patient_id", "fold", "label", "probability", "pictures_only"]
    for column in ("probability", "pictures_only"):
        same = table[column] == turned[column]
        assert same[folds == 1].all()  # their own labels have no effect on them
        assert not same[folds != 1].any()
    expected = judged(bags, seen.means(bags), EVERYBODY[folds != 2], EVERYBODY[folds == 2])
    np.testing.assert_array_equal(table["probability"][folds == 2], expected)
    kept = pd.read_csv(tmp_path / "imagenet/out_of_fold.csv")
    np.testing.assert_allclose(kept["probability"], table["probability"])
    assert (tmp_path / "imagenet/full.safetensors").exists()
    again = train_imagenet(bags, folds, tmp_path, CPU)  # finished results are reused: nothing is embedded again
    np.testing.assert_allclose(again["probability"], table["probability"])


def test_nothing_of_other_held_out_patients_moves_a_prediction(bags: Bags, means: Floats) -> None:
    training, asked = EVERYBODY[:18], EVERYBODY[18:]
    before = judged(bags, means, training, asked)
    other_means, other = means.copy(), replace(bags, clinical=bags.clinical.copy())
    other_means[19:] *= 3
    other.clinical[19:] += 2
    after = judged(other, other_means, training, asked)
    assert after[0] == before[0]
    assert (after[1:] != before[1:]).all()
    other_means[3] *= 3
    assert judged(other, other_means, training, asked)[0] != before[0]


def test_the_gate_is_fitted_on_patients_whom_neither_expert_had_seen(bags: Bags, means: Floats) -> None:
    sex, count, age = bags.clinical.astype(np.float64).T
    clinical = np.stack([sex, np.log(count) - 2, (age - 60) / 10], axis=1)
    features = np.concatenate([clinical, 3 * np.log(np.maximum(count, 7) / 7)[:, None], means[:PATIENTS]], axis=1)
    experts, folds = np.empty((2, PATIENTS)), np.empty(PATIENTS, dtype=np.int64)
    splitter = StratifiedKFold(3, shuffle=True, random_state=0)
    for fold, (rest, held_out) in enumerate(splitter.split(bags.labels, bags.labels)):
        bayes = FlooredBayes(bags.clinical[rest], bags.labels[rest])
        pictures = fit_fixed(features[rest], bags.labels[rest], 1280)
        experts[0, held_out] = pictures.predict_proba(features[held_out])[:, 1]
        experts[1, held_out] = bayes.predict(bags.clinical[held_out])
        folds[held_out] = fold
    expected = choose_gate(experts, clinical, bags.labels, folds).gate
    with patch.object(imagenet, "no_gate", lambda *_: ChosenGate(expected, 0, np.inf, np.zeros(0))):
        found = fit_gated(bags, features, EVERYBODY).gate
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-3, atol=1e-5)
    assert [one.slope for one in found.calibration] == pytest.approx([one.slope for one in expected.calibration])


def test_an_expert_that_is_too_sure_is_held_as_in_fitting(bags: Bags, means: Floats) -> None:
    """Counts far above any in training: naive Bayes' odds exceed the range of a float."""
    training, asked = EVERYBODY[:18], EVERYBODY[18:]
    far = replace(bags, clinical=bags.clinical.copy())
    far.clinical[18:, 1] = [200, 300, 400, 500, 700, 900]
    network = fit_network(far, means, training)
    bayes = GaussianNB().fit(far.clinical[training], far.labels[training])
    odds = bayes.predict_joint_log_proba(far.clinical[asked])
    assert (np.abs(odds[:, 1] - odds[:, 0]) > LIMIT).any()
    with torch.inference_mode():
        added = network.pictures.linear(torch.from_numpy(means[asked]).float()).squeeze(1)
        found = network.head(added, torch.from_numpy(far.clinical[asked])).probability.numpy()
    np.testing.assert_allclose(found, judged(far, means, training, asked), atol=1e-5)


def test_below_the_floor_of_the_count_naive_bayes_stands_still(bags: Bags, means: Floats) -> None:
    training, asked = EVERYBODY[:18], EVERYBODY[18:]
    low = replace(bags, clinical=bags.clinical.copy())
    low.clinical[:18:2, 1] = np.linspace(4, 6, 9)  # reactive counts have a small variance
    low.clinical[18:, 1] = [0.01, 0.5, 1, 2, 3, 4]
    network = fit_network(low, means, training)
    floor = float(network.head.get_buffer("floor"))
    assert 4 < floor < 6
    with torch.inference_mode():
        added = network.pictures.linear(torch.from_numpy(means[asked]).float()).squeeze(1)
        found = network.head(added, torch.from_numpy(low.clinical[asked])).probability.numpy()
        odds = network.head._bayes(torch.from_numpy(low.clinical))
    np.testing.assert_allclose(found, judged(low, means, training, asked), atol=1e-5)
    sex_and_age = low.clinical[:, [0, 2]]
    model = FlooredBayes(low.clinical[training], low.labels[training])
    raised = np.stack([sex_and_age[:, 0], np.maximum(low.clinical[:, 1], floor), sex_and_age[:, 1]], axis=1)
    expected = model.plain.predict_log_proba(raised)
    np.testing.assert_allclose(odds, expected[:, 1] - expected[:, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *((linear, name) for name in ("FIXED_COMPONENTS", "FIXED_STRENGTH", "SMALLEST_SPREAD", "CLASS_WEIGHTS")),
        *((imagenet, name) for name in ("INNER", "GATE_PULLS", "KNOT", "EXCESS")),
    ],
)
def test_every_number_is_among_those_that_predictions_are_known_by(module: ModuleType, name: str) -> None:
    before = numbers(), digests(SMALL, 0)
    with patch.object(module, name, "another"):
        assert numbers() != before[0]
        assert {key for key, value in digests(SMALL, 0).items() if value != before[1][key]} == {"imagenet_sha256"}
    with patch.object(imagenet, "MAGNIFICATION", Magnification(112, 112)):
        assert numbers() != before[0]


def test_pictures_only_does_not_see_the_clinical_values(bags: Bags, seen: Features, tmp_path: Path) -> None:
    other = bags.clinical[::-1].copy()
    with patch.object(imagenet, "embed_pictures", lambda *_: seen):
        first = train_imagenet(bags, EVERYBODY % 3, tmp_path / "a", CPU)
        second = train_imagenet(replace(bags, clinical=other), EVERYBODY % 3, tmp_path / "b", CPU)
    np.testing.assert_array_equal(first["pictures_only"], second["pictures_only"])
    assert (first["probability"] != second["probability"]).any()
