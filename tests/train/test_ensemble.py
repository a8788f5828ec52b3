"""The ensemble and its decisions, on predictions with known answers and on stub run folders."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.metrics import balanced_accuracy_score

from infer.bundle.manifest import Ensemble
from infer.errors import UsageError
from infer.members import registry as infer_registry
from infer.scoring.ensemble import calibrated, decide, disagree, with_a_say
from tests.train.bags import make_bags
from train.core.calibration import fit_calibration
from train.data.bags import Bags
from train.ensemble import fit
from train.ensemble.fit import (
    LARGEST_REFERRED,
    PULLS,
    TRUSTED_ACCURACY,
    best_threshold,
    choose_pull,
    combine,
    decide_all,
    fit_ensemble,
    fit_operating_points,
    fit_weights,
    input_digests,
    refer_band,
    sensitivity_threshold,
    spread,
    train_ensemble,
)
from train.members import registry
from train.members.registry import names

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
FOLDERS = {member.name: member.folder for member in registry.MEMBERS}


def simulated(patients: int, strength: float, seed: int = 0) -> tuple[Floats, Labels]:
    """Calibrated probabilities, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probability = expit(rng.normal(0.3, strength, patients))
    return probability, (rng.random(patients) < probability).astype(np.int64)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, -1.0), (2.5, 0.7)])
def test_calibration_recovers_a_known_map(slope: float, intercept: float) -> None:
    true, labels = simulated(40_000, 1.5)
    distorted = expit((logit(true) - intercept) / slope)
    found = fit_calibration(distorted, labels)
    assert found.slope == pytest.approx(slope, rel=0.05)
    assert found.intercept == pytest.approx(intercept, abs=0.05)
    np.testing.assert_allclose(calibrated(distorted, found), true, rtol=0, atol=0.03)


def test_calibration_keeps_the_order_and_is_finite_for_a_perfect_member() -> None:
    probability, labels = np.array([0.0, 0.1, 0.2, 0.8, 0.9, 1.0]), np.array([0, 0, 0, 1, 1, 1])
    smooth = calibrated(probability, fit_calibration(probability, labels))
    assert (np.diff(smooth) > 0).all()
    assert 0 < smooth[0] < 0.2
    assert 0.8 < smooth[-1] < 1


def test_a_member_worse_than_chance_is_not_turned_round() -> None:
    probability, labels = simulated(200, 1.5)
    found = fit_calibration(1 - probability, labels)
    assert found.slope > 0
    smooth = calibrated(1 - probability, found)
    np.testing.assert_allclose(smooth, labels.mean(), atol=0.01)


def test_a_constant_member_calibrates_to_the_prevalence() -> None:
    labels = np.array([1] * 75 + [0] * 25)
    smooth = calibrated(np.full(100, 0.4), fit_calibration(np.full(100, 0.4), labels))
    np.testing.assert_allclose(smooth, 0.75, atol=0.01)


def test_weights_are_shares_and_a_useless_member_gets_less() -> None:
    good, labels = simulated(130, 2.5)
    useless = np.random.default_rng(1).permutation(good)
    pulled = []
    for pull in (0.0, 0.2, 100.0):
        weights = fit_weights(np.stack([useless, good, np.full(130, labels.mean())]), labels, pull)
        assert weights.sum() == pytest.approx(1, abs=1e-9)
        assert (weights >= 0).all()
        pulled.append(weights)
    assert pulled[0][1] > 0.95
    assert pulled[1][1] > 1.5 * max(pulled[1][0], pulled[1][2])
    assert min(pulled[1]) > 0.05
    np.testing.assert_allclose(pulled[2], 1 / 3, atol=0.01)


@pytest.mark.parametrize("pull", PULLS)
def test_weights_of_equal_members_are_equal(pull: float) -> None:
    good, labels = simulated(130, 2.5)
    np.testing.assert_allclose(fit_weights(np.stack([good] * 3), labels, pull), 1 / 3, atol=1e-4)


@pytest.mark.parametrize("pull", PULLS)
def test_weights_minimise_the_stated_cost(pull: float) -> None:
    members = np.stack([simulated(200, strength, seed=0)[0] for strength in (2.0, 1.0, 0.1)])
    labels = simulated(200, 2.0, seed=0)[1]
    weights = fit_weights(members, labels, pull)

    def cost(w: Floats) -> float:
        mixed = w @ members
        return float(
            -np.mean(np.where(labels == 1, np.log(mixed), np.log(1 - mixed))) + pull * np.sum((w - 1 / 3) ** 2)
        )

    steps = [np.array(step) for step in itertools.permutations([0.02, -0.02, 0.0])]
    others = [weights + step for step in steps if (weights + step >= 0).all()]
    assert others
    assert all(cost(weights) < cost(other) for other in others)


def test_a_useless_member_can_lose_all_weight_where_the_folds_say_so() -> None:
    """A member that guesses beside one that tells; the folds choose no pull, and its weight is then 0."""
    good, labels = simulated(300, 3.0)
    members, folds = np.stack([np.random.default_rng(1).permutation(good), good]), np.arange(300) % 5
    pull, loss = choose_pull(members, labels, folds, ("useless", "good"))
    assert pull == 0
    assert fit_ensemble(members, labels, ("useless", "good"), pull).weights["useless"] < 1e-6
    held = choose_pull(members, labels, folds, ("useless", "good"), (0.2,))
    assert held[0] == 0.2
    assert held[1] > loss + 0.005  # equal shares cost it something
    assert fit_ensemble(members, labels, ("useless", "good"), 0.2).weights["useless"] > 0.1


def test_members_that_are_equally_good_are_pulled_together() -> None:
    """Few patients and three members that tell alike: a pull towards equal weights loses less on patients left out."""
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 1.5, 40)
    labels = (rng.random(40) < expit(truth)).astype(np.int64)
    members = expit(truth + rng.normal(0, 1.5, (3, 40)))
    assert choose_pull(members, labels, np.arange(40) % 5, ("a", "b", "c"))[0] == max(PULLS)


@pytest.mark.parametrize("pulls", [PULLS, PULLS[::-1], (0.2, 0.05)])
def test_of_equally_good_pulls_the_smallest_is_taken(pulls: tuple[float, ...]) -> None:
    """One member has all weight, whatever it is pulled by."""
    good, labels = simulated(60, 2.0)
    assert choose_pull(good[None], labels, np.arange(60) % 3, ("alone",), pulls)[0] == min(pulls)


def test_the_pulls_loss_is_of_patients_whom_its_fits_have_not_seen() -> None:
    """Compared with a slow loop over folds and patients."""
    good, labels = simulated(90, 2.0)
    members, folds = np.stack([good, np.random.default_rng(1).permutation(good)]), np.arange(90) // 5 % 3
    losses = {}
    for pull in PULLS:
        total = 0.0
        for fold in range(3):
            fitted = fit_ensemble(members[:, folds != fold], labels[folds != fold], ("a", "b"), pull)
            for patient in np.flatnonzero(folds == fold):
                smooth = [
                    float(calibrated(row[patient], fitted.calibration[name]))
                    for name, row in zip("ab", members, strict=True)
                ]
                probability = fitted.weights["a"] * smooth[0] + fitted.weights["b"] * smooth[1]
                total -= np.log(probability if labels[patient] else 1 - probability)
        losses[pull] = total / 90
    pull, loss = choose_pull(members, labels, folds, ("a", "b"))
    assert pull == min(losses, key=losses.__getitem__)
    assert loss == pytest.approx(losses[pull])
    assert len(set(losses.values())) == 3


def test_best_threshold_equals_brute_force() -> None:
    for seed in range(10):
        probability, labels = simulated(40, 1.5, seed)
        probability = probability.round(1)  # with ties
        found = best_threshold(probability, labels)
        reached = balanced_accuracy_score(labels, probability >= found)
        grid = [balanced_accuracy_score(labels, probability >= threshold) for threshold in np.linspace(0, 1, 201)]
        assert reached >= max(grid) - 1e-12
        assert np.abs(probability - found).min() > 0.04  # midway between two values


def test_sensitivity_threshold_by_hand() -> None:
    probability = np.array([0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5, 0.55] + [0.95] * 10)
    labels = np.ones(20, dtype=np.int64)
    assert sensitivity_threshold(probability, labels, 0.95) == 0.2  # one of 20 may be missed
    assert sensitivity_threshold(probability, labels, 0.98) == 0.1
    assert sensitivity_threshold(probability, labels, 0.90) == 0.3


@pytest.mark.parametrize("sensitivity", [0.95, 0.98, 0.8])
def test_sensitivity_threshold_is_the_highest_that_keeps_it_at_ties_too(sensitivity: float) -> None:
    for seed in range(20):
        probability, labels = simulated(100, 1.5, seed)
        probability = probability.round(1)
        threshold = sensitivity_threshold(probability, labels, sensitivity)
        malignant = probability[labels == 1]
        assert np.mean(malignant >= threshold) >= sensitivity - 1e-12
        assert np.mean(malignant >= threshold + 0.05) < sensitivity


def referred(probability: Floats, band: tuple[float, float]) -> npt.NDArray[np.bool_]:
    return (probability >= band[0]) & (probability < band[1])


def test_nobody_is_referred_where_all_can_be_decided() -> None:
    probability, labels = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9]), np.array([0, 0, 0, 1, 1, 1])
    assert refer_band(probability, labels, 0.5) == (0.5, 0.5)


def test_band_by_hand() -> None:
    """Two of 16 patients are on the wrong side: the second and third nearest to the threshold."""
    distance = np.linspace(0.2, 4, 16)
    side = np.where(np.arange(16) % 2 == 0, 1, -1)
    labels = (side > 0).astype(np.int64)
    labels[[1, 2]] = 1 - labels[[1, 2]]
    low, high = refer_band(expit(distance * side), labels, 0.5)
    inside = np.abs(logit(expit(distance * side))) < logit(high)
    assert inside.tolist() == [True] * 3 + [False] * 13
    assert logit(high) == pytest.approx(distance[2], rel=1e-6)
    assert low + high == pytest.approx(1)


def test_band_properties() -> None:
    widths = set()
    for seed in range(30):
        probability, labels = simulated(120, 2.0 + 4.0 * (seed % 2), seed)
        threshold = best_threshold(probability, labels)
        low, high = refer_band(probability, labels, threshold)
        assert low <= threshold <= high
        assert logit(threshold) - logit(low) == pytest.approx(logit(high) - logit(threshold), abs=1e-9)
        inside = referred(probability, (low, high))
        assert inside.mean() <= LARGEST_REFERRED
        alone = balanced_accuracy_score(labels[~inside], probability[~inside] >= threshold)
        if alone < TRUSTED_ACCURACY:  # then the band has its maximum width
            wider = np.sort(np.abs(logit(probability) - logit(threshold)))[inside.sum()] * (1 + 1e-9)
            assert np.mean(np.abs(logit(probability) - logit(threshold)) <= wider) > LARGEST_REFERRED
        widths.add(alone >= TRUSTED_ACCURACY)
    assert widths == {True, False}  # both cases occurred


def test_operating_points_decide_as_they_promise() -> None:
    probability, labels = simulated(130, 2.0)
    points = fit_operating_points(probability, labels)
    assert set(points) == {"balanced", "sensitivity-95", "sensitivity-98"}
    for percent in (95, 98):
        point = points[f"sensitivity-{percent}"]
        decisions = np.array([decide(value, point) for value in probability])
        assert np.mean(decisions[labels == 1] == "reactive") <= 1 - percent / 100 + 1e-12
        assert point.refer_low <= points["balanced"].refer_low
        assert point.refer_high == points["balanced"].refer_high
    assert points["sensitivity-98"].refer_low <= points["sensitivity-95"].refer_low


PATIENTS = 40
TRAINED_BESIDE = (
    "baseline/full.safetensors",
    "cells/full.safetensors",
    "cells/fusion.json",
    "cells/naive_bayes.json",
    "cells/numbers.json",
    "moe/full.safetensors",
    "moe/numbers.json",
    "imagenet/full.safetensors",
    "imagenet/numbers.json",
)
assigned = np.arange(PATIENTS) // 2 % 5


DIFFERENT = (0.5, 1.0, 1.5, 0.75)


def stub_run(run: Path, seed: int = 0, strengths: Sequence[float] = DIFFERENT) -> Bags:
    """A run folder with out-of-fold predictions of four members, of different quality if not told otherwise."""
    bags = make_bags([0, 1] * (PATIENTS // 2), [1] * PATIENTS)
    bags.clinical[:, 1] = np.linspace(4, 12, PATIENTS)  # so that the grey zone has both classes
    rng = np.random.default_rng(seed)
    for (_, folder), strength in zip(FOLDERS.items(), strengths, strict=True):
        probability = expit(rng.normal(strength * (2 * bags.labels - 1), 1))
        facts = {"patient_id": bags.patient_ids, "fold": assigned, "label": bags.labels, "probability": probability}
        (run / folder).mkdir(parents=True)
        table = pd.DataFrame({**facts, "pictures_only": probability, "gate": 0.5})
        table.to_csv(run / folder / "out_of_fold.csv", index=False)
    for name in TRAINED_BESIDE:
        (run / name).write_bytes(name.encode())
    return bags


def out_of_fold(run: Path) -> Floats:
    """The members' probabilities in a run folder: (M, P)."""
    return np.stack([pd.read_csv(run / folder / "out_of_fold.csv")["probability"] for folder in FOLDERS.values()])


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the bootstrap intervals: they take seconds and are tested elsewhere."""
    monkeypatch.setattr("train.ensemble.fit.summary", lambda labels, score, count: {"auc": 0.5})


@pytest.mark.usefixtures("no_figures")
def test_a_patients_cross_fitted_probability_does_not_see_its_label(tmp_path: Path) -> None:
    bags = stub_run(tmp_path)
    for patient in (0, 7, 23):
        train_ensemble(bags, assigned, tmp_path)
        before = pd.read_csv(tmp_path / "ensemble/out_of_fold.csv")["probability"]
        bags.labels[patient] = 1 - bags.labels[patient]
        train_ensemble(bags, assigned, tmp_path)
        after = pd.read_csv(tmp_path / "ensemble/out_of_fold.csv")["probability"]
        own_fold = assigned == assigned[patient]
        assert (before == after)[own_fold].all()
        assert (before != after)[~own_fold].all()


@pytest.mark.usefixtures("no_figures")
def test_the_ensemble_that_ships_is_fitted_on_everybody(tmp_path: Path) -> None:
    bags = stub_run(tmp_path, strengths=[1.0] * 4)  # so that several have a say
    figures = train_ensemble(bags, assigned, tmp_path)
    stored = msgspec.json.decode((tmp_path / "ensemble/ensemble.json").read_bytes(), type=Ensemble)
    members = out_of_fold(tmp_path)
    pull, _ = choose_pull(members, bags.labels, assigned, names())
    assert stored == fit_ensemble(members, bags.labels, names(), pull)
    assert figures["pull of the weights"] == {"towards equal ones": pull}
    assert json.loads((tmp_path / "ensemble/metrics.json").read_text()) == figures
    named = {name for member in names() for name in (member, f"{member}, pictures only")}
    named |= {f"operating point {name}" for name in stored.operating_points}
    named |= {"ensemble", "clinical GaussianNB", "moe gate", "disagreement", "influence", "pull of the weights"}
    assert set(figures) == named


@pytest.mark.usefixtures("no_figures")
def test_the_pull_that_a_patient_meets_was_chosen_without_the_patients_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first choice is of the ensemble that ships, each other one of the patients outside one fold."""
    bags = stub_run(tmp_path)
    asked: list[tuple[list[int], list[int]]] = []
    answers = iter([0.0, 5.0, 0.05, 0.0, 0.2, 5.0])

    def chosen(members: Floats, labels: Labels, folds: Labels, of: tuple[str, ...]) -> tuple[float, float]:
        assert members.shape == (4, len(labels))
        asked.append((labels.tolist(), folds.tolist()))
        return next(answers), 0.0

    monkeypatch.setattr(fit, "choose_pull", chosen)
    figures = train_ensemble(bags, assigned, tmp_path)
    assert figures["pull of the weights"] == {"towards equal ones": 0.0}
    assert asked[0] == (bags.labels.tolist(), assigned.tolist())
    found = pd.read_csv(tmp_path / "ensemble/out_of_fold.csv")["probability"].to_numpy()
    members = out_of_fold(tmp_path)
    for fold, pull in enumerate([5.0, 0.05, 0.0, 0.2, 5.0]):
        rest = assigned != fold
        assert asked[1 + fold] == (bags.labels[rest].tolist(), assigned[rest].tolist())
        fitted = fit_ensemble(members[:, rest], bags.labels[rest], names(), pull)
        np.testing.assert_allclose(found[~rest], combine(members[:, ~rest], fitted))


@pytest.mark.usefixtures("no_figures")
def test_decisions_are_cross_fitted_and_counted(tmp_path: Path) -> None:
    bags = stub_run(tmp_path, seed=1, strengths=[1.0] * 4)  # so that several have a say
    figures = train_ensemble(bags, assigned, tmp_path)
    members = out_of_fold(tmp_path)
    decided, apart = np.empty(PATIENTS, dtype=object), 0
    for fold in range(5):
        seen = assigned != fold
        pull, _ = choose_pull(members[:, seen], bags.labels[seen], assigned[seen], names())
        fitted = fit_ensemble(members[:, seen], bags.labels[seen], names(), pull)
        for patient in np.flatnonzero(~seen):
            smooth = {
                name: calibrated(row[patient], fitted.calibration[name])
                for name, row in zip(names(), members, strict=True)
            }
            mixed = sum(fitted.weights[name] * float(smooth[name]) for name in names())
            decided[patient] = decide(mixed, fitted.operating_points["sensitivity-95"])
            lie = [float(value) for name, value in smooth.items() if fitted.weights[name] >= 0.05]
            if fitted.disagreement is not None and max(lie) - min(lie) > fitted.disagreement:
                decided[patient], apart = "refer", apart + 1
    found = figures["operating point sensitivity-95"]
    for label, word in ((1, "malignant"), (0, "reactive")):
        for decision in ("malignant", "reactive"):
            share = np.mean(decided[bags.labels == label] == decision)
            assert found[f"{word}_called_{decision}"] == pytest.approx(share)
    assert found["referred"] == pytest.approx(np.mean(decided == "refer"))
    assert found["malignant_called_reactive"] < found["malignant_called_malignant"]
    assert apart > 0
    assert figures["disagreement"]["referred"] == pytest.approx(apart / PATIENTS)
    shipped = msgspec.json.decode((tmp_path / "ensemble/ensemble.json").read_bytes(), type=Ensemble)
    assert figures["disagreement"]["bound"] == shipped.disagreement


def test_the_bound_on_disagreement_is_what_one_in_twenty_exceeds() -> None:
    """In probabilities calibrated by hand, of patients like those it was fitted on; among the others it is the same."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    members = expit(rng.normal(1.5 * (2 * labels - 1), [[0.7], [1.0], [2.0]], (3, 4000)))
    names = ("a", "b", "c")
    fitted = fit_ensemble(members[:, :2000], labels[:2000], names, 5.0)
    smooth = np.stack([calibrated(row, fitted.calibration[name]) for name, row in zip(names, members, strict=True)])
    assert set(with_a_say(fitted)) == set(names)
    lie = smooth.max(axis=0) - smooth.min(axis=0)
    assert fitted.disagreement == pytest.approx(np.sort(lie[:2000])[1899:1901].mean(), abs=1e-3)
    assert np.mean(lie[:2000] > fitted.disagreement) == pytest.approx(0.05)
    assert 0.03 < np.mean(lie[2000:] > fitted.disagreement) < 0.07
    decided = decide_all(members, fitted)
    assert list(decided) == list(fitted.operating_points)
    for name, point in fitted.operating_points.items():
        by_probability = np.array([decide(float(value), point) for value in combine(members, fitted)])
        expected = np.where(lie > fitted.disagreement, "refer", by_probability)
        assert decided[name].tolist() == expected.tolist()
        assert (expected != by_probability).any()


def test_one_member_alone_has_nobody_to_disagree_with() -> None:
    probability, labels = simulated(60, 1.5)
    fitted = fit_ensemble(probability[None], labels, ("a",), 0.0)
    assert fitted.disagreement is None
    assert not disagree(1.0, fitted)


def test_a_member_that_is_worth_nothing_disagrees_with_nobody() -> None:
    """It gives everybody the share of malignant patients, far from where the other is sure."""
    probability, labels = simulated(200, 3.0)
    useless = np.random.default_rng(1).random(200)
    fitted = fit_ensemble(np.stack([probability, useless]), labels, ("a", "b"), 0.0)
    assert fitted.weights["b"] < 0.05
    assert fitted.disagreement is None
    assert spread(np.stack([probability, useless]), fitted).tolist() == [0.0] * 200


@pytest.mark.usefixtures("no_figures")
def test_influence_is_how_far_a_member_moves_the_ensemble(tmp_path: Path) -> None:
    bags = stub_run(tmp_path)
    figures = train_ensemble(bags, assigned, tmp_path)
    ensemble = msgspec.json.decode((tmp_path / "ensemble/ensemble.json").read_bytes(), type=Ensemble)
    for name, folder in FOLDERS.items():
        smooth = calibrated(
            pd.read_csv(tmp_path / folder / "out_of_fold.csv")["probability"].to_numpy(), ensemble.calibration[name]
        )
        low, high = np.quantile(smooth, [0.05, 0.95])
        assert figures["influence"][name] == pytest.approx(ensemble.weights[name] * (high - low))


@pytest.mark.usefixtures("no_figures")
def test_the_ensemble_remembers_what_it_was_fitted_on(tmp_path: Path) -> None:
    bags = stub_run(tmp_path)
    train_ensemble(bags, assigned, tmp_path)
    stored = json.loads((tmp_path / "ensemble/inputs.json").read_text())
    assert stored == input_digests(tmp_path)
    stored_names = {*TRAINED_BESIDE, *(f"{folder}/out_of_fold.csv" for folder in FOLDERS.values())}
    assert set(stored) == stored_names
    for name in stored_names:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"\n")
        assert [key for key, digest in input_digests(tmp_path).items() if digest != stored[key]] == [name]
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])


def test_members_stand_in_the_manifests_order(tmp_path: Path) -> None:
    """The best member, which is the mixture by construction, gets the largest weight."""
    bags = stub_run(tmp_path)
    ensemble = fit_ensemble(out_of_fold(tmp_path), bags.labels, names(), 0.2)
    assert max(ensemble.weights, key=lambda name: ensemble.weights[name]) == "moe"
    assert list(ensemble.weights) == list(names()) == list(infer_registry.names()) == list(FOLDERS)


def test_a_member_that_is_missing_or_of_other_patients(tmp_path: Path) -> None:
    bags = stub_run(tmp_path)
    path = tmp_path / "cells/out_of_fold.csv"
    text = path.read_text()
    path.write_text(text.replace("p3,", "p99,"))
    with pytest.raises(UsageError, match=r"cells/out_of_fold\.csv: lists other patients"):
        train_ensemble(bags, assigned, tmp_path)
    path.unlink()
    with pytest.raises(UsageError, match=r"has no cells/out_of_fold\.csv\. Run `python -m train cells`"):
        train_ensemble(bags, assigned, tmp_path)
