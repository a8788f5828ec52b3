"""The nested protocol: who is predicted from whom, caching, inner selection, and chance level for permuted labels."""

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from export.card import figures as card_figures
from infer.errors import UsageError
from tests.synthetic import SyntheticPatient, make_patients, write_cohort
from tests.train.bags import make_bags
from tests.train_fixtures import DATE, SHORT, SMALL_BATCHES, TrainedRun, clear_cut, train, with_features
from train.core.arrays import Floats, Indices
from train.core.performance import Predictions
from train.data.bags import Bags, load_crops
from train.data.whose_pictures import BLANK, OWN, SWAPPED, whose_pictures
from train.ensemble.fit import PULLS, best_threshold, choose_pull, combine, decide_all, fit_ensemble
from train.evaluation.nested import inductive, leads
from train.evaluation.nested.inductive import Look, inductive_looks, simclr_member
from train.evaluation.nested.models import (
    GATED_SIMCLR,
    IN_TURN,
    SIMCLR,
    TRANSDUCTIVE,
    all_members,
    clinical_bayes,
    clinical_logistic,
    count_cut_off,
    ensembles,
    with_simclr,
)
from train.evaluation.nested.plan import Outer, Predictor, all_tasks, inner_tasks, outer_folds, outer_task
from train.evaluation.nested.protocol import CHOSEN, Nested, gather, train_part
from train.evaluation.nested.report import SHOWN, weight_spread, without_seeing, write_report
from train.evaluation.nested.stacking import SHIPPED, Stack, score_ensemble, score_member, without
from train.evaluation.nested.tables import (
    blind_table,
    difference_table,
    operating_point_table,
    performance_table,
    subgroups,
)
from train.members import registry
from train.members.candidate import Candidate, MeanOf, members_of
from train.members.cells import member as cells_member
from train.members.features import Features, embed_pictures
from train.members.imagenet import MAGNIFICATION
from train.members.linear import fit_logistic
from train.members.naive_bayes import OWN_NETWORK, ClassSource, on_classes
from train.members.recipes import SMALL, BayesRecipe, Recipe, adapted
from train.members.registry import names as member_names
from train.members.scaling import scaled
from train.members.scan.measures import Collapse

CPU = torch.device("cpu")


def clinical_bags(patients: int = 60, *, strength: float = 2.0, seed: int = 0) -> Bags:
    """Malignant is more likely with higher age and count."""
    rng = np.random.default_rng(seed)
    bags = make_bags([0, 1] * (patients // 2), [1] * patients, seed=seed)
    score = strength * rng.normal(size=patients)
    labels = (rng.random(patients) < expit(score)).astype(np.int64)
    clinical = bags.clinical.copy()
    clinical[:, 1], clinical[:, 2] = np.exp(2 + 0.5 * score), 60 + 8 * score
    return replace(bags, labels=labels, clinical=clinical.astype(np.float32))


def recorded(calls: list[tuple[Indices, Indices]], name: str = "recorder", *, repeated: bool = True) -> Candidate:
    """A member that records its training and predicted patients, and predicts each patient's index."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        calls.append((training, asked))
        return np.asarray(asked / 1000)

    return Candidate(name, {"number": 1}, predict, repeated)


def test_every_patient_is_held_out_once_a_repeat_and_once_in_each_outer_training_fold() -> None:
    labels = np.repeat([0, 1], [15, 35])
    folds = outer_folds(labels, seed=3, repeats=2)
    assert len(folds) == 2 * 5
    for repeat in (0, 1):
        held_out = np.concatenate([fold.held_out for fold in folds if fold.repeat == repeat])
        assert sorted(held_out) == list(range(50))
    for fold in folds:
        for indices in (fold.training, fold.held_out, *fold.inner):
            assert (np.diff(indices) > 0).all()  # sorted, as needed for joining by searchsorted
        assert not set(fold.training) & set(fold.held_out)
        assert sorted(np.concatenate(fold.inner)) == sorted(fold.training)
        assert len(fold.inner) == 3
        assert all(0.2 < 1 - labels[part].mean() < 0.4 for part in (fold.held_out, *fold.inner))
    assert sorted(folds[0].held_out) != sorted(folds[5].held_out)


def test_nobody_is_predicted_by_a_model_that_saw_it(tmp_path: Path) -> None:
    bags = clinical_bags()
    calls: list[tuple[Indices, Indices]] = []
    member = recorded(calls)
    outers = outer_folds(bags.labels, 0, 1)
    gather(bags, Predictor(bags, tmp_path), [member], outers, {})
    assert len(calls) == 5 * 4
    for training, asked in calls:
        assert not set(training) & set(asked)
    for outer, four in zip(outers, np.arange(20).reshape(5, 4), strict=True):
        *inner, whole = (calls[index] for index in four)
        assert all(set(training) | set(asked) == set(outer.training) for training, asked in inner)
        assert sorted(np.concatenate([asked for _, asked in inner])) == sorted(outer.training)
        assert (set(whole[0]), set(whole[1])) == (set(outer.training), set(outer.held_out))


def test_what_takes_long_is_trained_in_the_first_repeat_alone(tmp_path: Path) -> None:
    bags = clinical_bags()
    quick, slow = recorded([], "quick"), recorded([], "slow", repeated=False)
    outers = outer_folds(bags.labels, 0, 3)
    counts = Counter(task.member.name for task in all_tasks([quick, slow], outers))
    assert counts == {"quick": 60, "slow": 20}
    nested = gather(bags, Predictor(bags, tmp_path), [quick, slow], outers, {"both": Stack(("quick", "slow"))})
    assert {model: len(repeats) for model, repeats in nested.predictions.items()} == {"quick": 3, "slow": 1, "both": 1}


def test_shares_of_the_work_are_whole_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    bags = clinical_bags()
    calls: list[tuple[Indices, Indices]] = []
    members, outers = [recorded(calls, "a"), recorded(calls, "b")], outer_folds(bags.labels, 0, 1)
    predictor = Predictor(bags, tmp_path)
    train_part(predictor, members, outers, 1, 2)
    assert len(calls) == 20
    train_part(predictor, members, outers, 2, 2)
    assert len(calls) == 40
    train_part(predictor, members, outers, 1, 2)
    first = gather(bags, predictor, members, outers, {})
    assert len(calls) == 40
    again = gather(bags, Predictor(bags, tmp_path), members, outers, {})
    np.testing.assert_array_equal(first.predictions["a"][0].probability, again.predictions["a"][0].probability)


def test_predictions_are_kept_by_content(tmp_path: Path) -> None:
    bags = clinical_bags()
    calls: list[tuple[Indices, Indices]] = []
    member = recorded(calls)
    task = all_tasks([member], outer_folds(bags.labels, 0, 1))[0]
    predictor = Predictor(bags, tmp_path)
    np.testing.assert_array_equal(predictor.predict(task), task.asked / 1000)
    assert len(calls) == 1
    others = {
        "numbers": replace(task, member=replace(member, facts={"number": 2})),
        "training": replace(task, training=task.training[1:]),
        "asked": replace(task, asked=task.asked[1:]),
        "name": replace(task, member=replace(member, name="another")),
    }
    keys = {name: other.key(bags) for name, other in others.items()}
    assert len({task.key(bags), *keys.values()}) == 5
    assert task.key(replace(bags, facts={**bags.facts, "table_sha256": "1"})) != task.key(bags)


def test_members_that_differ_in_title_and_column_alone_share_a_training(tmp_path: Path) -> None:
    bags = clinical_bags()
    calls: list[Indices] = []

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        calls.append(asked)
        return {"probability": asked / 1000, "turned": asked / 2000}

    member = Candidate("deep", {}, predict)
    turned = replace(member, title="deep, turned", column="turned")
    outers = outer_folds(bags.labels, 0, 1)
    nested = gather(
        bags, Predictor(bags, tmp_path), [member, turned], outers, {"both": Stack(("deep", "deep, turned"))}
    )
    assert len(calls) == 20
    assert list(nested.predictions) == ["deep", "deep, turned", "both"]
    task = outer_task(turned, outers[0])
    np.testing.assert_array_equal(Predictor(bags, tmp_path).predict(task), task.asked / 2000)


def test_a_checkpoint_goes_when_its_predictions_are_there(tmp_path: Path) -> None:
    bags = clinical_bags()

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        checkpoint.write_text("weights")
        checkpoint.with_suffix(".progress").write_text("progress")
        return np.full(len(asked), 0.5)

    task = all_tasks([Candidate("deep", {}, predict)], outer_folds(bags.labels, 0, 1))[0]
    Predictor(bags, tmp_path).predict(task)
    assert [path.suffix for path in (tmp_path / "predictions").iterdir()] == [".csv"]


def cheap_members(bags: Bags, classes: Indices) -> list[Candidate]:
    """All models that train quickly: baselines, SCAN's naive Bayes, and one lead of each kind."""
    pictures = np.random.default_rng(9).normal(size=(len(bags.crops), 12)).astype(np.float32)
    return [
        count_cut_off(bags),
        clinical_logistic(bags),
        clinical_bayes(bags),
        on_classes(bags, ClassSource(partial(_same, classes), {}, cheap=True), SMALL.bayes),
        leads.clinical_interplay(bags),
        leads.embedded(bags, "embedded", Features(pictures, np.zeros(12, dtype=np.float32)), {}, dispersion=True),
        leads.class_shares(bags, "shares", classes, 15, {}),
        leads.homogeneity(bags, "homogeneity", pictures, {}),
    ]


def test_labels_of_the_held_out_change_nothing_that_they_get(tmp_path: Path) -> None:
    """Members, calibration, weights, regularisation, thresholds and selection use only training patients."""
    drawn = clinical_bags()
    drawn = replace(drawn, crops=drawn.crops[:1].expand(240, -1, -1, -1), offsets=np.arange(61) * 4)
    classes = np.random.default_rng(2).integers(0, 4, 240)
    outers = outer_folds(drawn.labels, 0, 1)[:1]
    held_out = outers[0].held_out
    ensembles = {
        "all": Stack(("clinical logistic", OWN_NETWORK, "embedded")),
        "two": Stack(("clinical GaussianNB", "shares")),
    }
    gates = {"gate": ("embedded", "clinical logistic")}
    found = {}
    nobody = held_out[:0]
    for name, turned in {"honest": nobody, "held out": held_out, "training": outers[0].training[:20]}.items():
        labels = drawn.labels.copy()
        labels[turned] = 1 - labels[turned]
        bags = replace(drawn, labels=labels)
        predictor = Predictor(bags, tmp_path / name)
        found[name] = gather(bags, predictor, cheap_members(bags, classes), outers, ensembles, gates)
    honest, same, other = found.values()
    assert honest.chosen == same.chosen
    assert honest.chosen != other.chosen
    assert len(honest.predictions) == 8 + 2 + 1 + 1
    for model, (one,) in honest.predictions.items():
        for name in ("probability", "called"):
            of_one, of_same = (getattr(of, name)[held_out] for of in (one, same.predictions[model][0]))
            np.testing.assert_array_equal(of_one, of_same)
        for percent, sent in one.sent_on.items():
            np.testing.assert_array_equal(sent[held_out], same.predictions[model][0].sent_on[percent][held_out])


def test_members_are_known_by_their_numbers(tmp_path: Path) -> None:
    """Another recipe or seed is another member: these are part of the cache key, and of the report's facts."""
    bags = clinical_bags(20)
    bags = replace(bags, crops=torch.zeros((20, 112, 112, 3), dtype=torch.uint8))

    def facts(recipe: Recipe, seed: int) -> list[tuple[str, str]]:
        members = all_members(bags, tmp_path, recipe, seed, CPU, inductive=False)[3:]
        assert [str(model) for model in members] == list(member_names())
        known = [json.dumps([one.facts for one in members_of(model)], default=str) for model in members]
        digests = registry.digests(recipe, seed)
        assert list(digests) == [f"{name}_sha256" for name in member_names()]
        return list(zip(known, digests.values(), strict=True))

    plain = facts(SMALL, 0)
    for others, changed in (
        (facts(SMALL, 1), [True, True, True, False]),
        (facts(adapted(SMALL, 3, None), 0), [True, False, False, False]),
        (facts(replace(SMALL, bayes=BayesRecipe(0.5)), 0), [False, True, False, False]),
        (facts(replace(SMALL, cells=replace(SMALL.cells, noise=0.1)), 0), [False, True, False, False]),
        (facts(replace(SMALL, experts=replace(SMALL.experts, dropout=0.1)), 0), [False, False, True, False]),
        (facts(replace(SMALL, moe=SHORT, scan=SMALL_BATCHES.scan), 0), [False] * 4),
    ):
        for which in (0, 1):
            assert [one[which] != other[which] for one, other in zip(plain, others, strict=True)] == changed


def test_a_task_that_another_process_is_at_is_left_to_it_or_waited_for(tmp_path: Path) -> None:
    """One process holds the task; a share skips it, and a call that needs it waits and does not train it again."""
    bags = clinical_bags()
    calls: list[tuple[Indices, Indices]] = []
    task = all_tasks([recorded(calls)], outer_folds(bags.labels, 0, 1))[0]
    predictor = Predictor(bags, tmp_path)
    path = predictor._path(task)
    script = (
        "import fcntl, pathlib, sys, time\n"
        "lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); print('held', flush=True)\n"
        "sys.stdin.readline(); pathlib.Path(sys.argv[2]).write_text(sys.argv[3])"
    )
    text = "patient_id,probability\n" + "".join(f"{bags.patient_ids[index]},0.25\n" for index in task.asked)
    arguments = [sys.executable, "-c", script, str(tmp_path / "locks" / path.stem), str(path), text]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        assert not predictor.train(task, wait=False)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(predictor.predict, task)
            other.stdin.write("go on\n")
            other.stdin.flush()
            np.testing.assert_array_equal(waiting.result(timeout=60), np.full(len(task.asked), 0.25))
    assert not calls


def test_the_truth_is_found_and_permuted_labels_fall_to_chance(tmp_path: Path) -> None:
    """Informative clinical values and cell classes; then the same with permuted labels."""
    found: list[float] = []
    chance: list[float] = []
    decided: list[float] = []
    for seed in range(6):
        drawn = clinical_bags(100, strength=2.5, seed=seed)
        drawn = replace(drawn, crops=drawn.crops[:1].expand(600, -1, -1, -1), offsets=np.arange(101) * 6)
        rng = np.random.default_rng(seed)
        own = drawn.labels[drawn.patient_of_image()]
        classes = 2 * np.where(rng.random(600) < 0.8, own, 1 - own) + rng.integers(0, 2, 600)
        for permuted in (False, True):
            bags = replace(drawn, labels=rng.permutation(drawn.labels)) if permuted else drawn
            members = [
                clinical_logistic(bags),
                on_classes(bags, ClassSource(partial(_same, classes), {}, cheap=True), SMALL.bayes),
            ]
            predictor = Predictor(bags, tmp_path / f"{seed}-{permuted}")
            ensembles = {"ensemble": Stack(("clinical logistic", OWN_NETWORK))}
            nested = gather(bags, predictor, members, outer_folds(bags.labels, seed, 1), ensembles)
            one = nested.predictions["ensemble"][0]
            (chance if permuted else found).append(roc_auc_score(bags.labels, one.probability))
            if permuted:
                decided.append(balanced_accuracy_score(bags.labels, one.called))
    assert np.mean(found) > 0.9
    assert abs(np.mean(chance) - 0.5) < 0.1
    assert abs(np.mean(decided) - 0.5) < 0.1


def _same(classes: Indices, training: Indices) -> Indices:
    del training
    return classes


def test_a_members_threshold_is_where_the_inner_predictions_part() -> None:
    inner, labels = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8]), np.array([0, 0, 0, 1, 1, 1])
    scored = score_member(inner, labels, np.array([0.31, 0.59, 0.44, 0.46]))
    assert scored.called.tolist() == [False, True, False, True]


def test_the_pull_is_the_one_of_least_loss_on_inner_folds_that_did_not_fit_it() -> None:
    """One informative member and two that guess; then three equally informative members."""
    rng = np.random.default_rng(0)
    score = rng.normal(0, 2, 120)
    labels = (rng.random(120) < expit(score)).astype(np.int64)
    folds, names, chosen = np.arange(120) % 3, ("a", "b", "c"), []
    for members in (
        np.stack([expit(score), *rng.uniform(0.3, 0.7, (2, 120))]),
        np.stack([expit(score + rng.normal(0, 3, 120)) for _ in range(3)]),
    ):
        losses = {}
        for pull in PULLS:
            total = 0.0
            for fold in range(3):
                fitted = fit_ensemble(members[:, folds != fold], labels[folds != fold], names, pull)
                for patient in np.flatnonzero(folds == fold):
                    probability = combine(members[:, patient : patient + 1], fitted)[0]
                    total -= np.log(probability if labels[patient] else 1 - probability)
            losses[pull] = total
        scored = score_ensemble(Stack(names), members, labels, folds, members[:, :7])
        pull = min(losses, key=losses.__getitem__)
        assert scored.chosen["pull"] == pull
        assert scored.chosen["inner_log_loss"] == pytest.approx(losses[pull] / 120)
        fitted = fit_ensemble(members, labels, names, pull)
        np.testing.assert_allclose(scored.probability, combine(members[:, :7], fitted))
        chosen.append(pull)
        held = score_ensemble(Stack(names, (0.05,)), members, labels, folds, members[:, :7])
        assert held.chosen["pull"] == 0.05
    assert len(set(chosen)) == 2


def test_of_several_ensembles_each_outer_fold_has_the_one_its_inner_folds_chose(tmp_path: Path) -> None:
    """One informative ensemble and one that guesses; labels of held-out patients have no effect."""
    bags = clinical_bags(80, strength=3.0)
    guess = recorded([], "guess")
    ensembles = {"poor": Stack(("guess",)), "good": Stack(("clinical logistic", "guess"))}
    members, outers = [clinical_logistic(bags), guess], outer_folds(bags.labels, 0, 1)
    nested = gather(bags, Predictor(bags, tmp_path), members, outers, ensembles)
    chosen = [one["ensemble"] for one in nested.chosen if one["model"] == CHOSEN]
    assert chosen == ["good"] * 5
    of_good, of_chosen = (nested.predictions[name][0].probability for name in ("good", CHOSEN))
    np.testing.assert_array_equal(of_good, of_chosen)


def telling(bags: Bags, name: str, worth: float) -> Candidate:
    """A stand-in for a member: it tells the label as far as it is worth something."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        return np.asarray(found[asked])

    noise = np.random.default_rng(sum(name.encode())).normal(size=len(bags))
    found = expit(worth * (2 * bags.labels - 1) + noise)
    return Candidate(name, {"worth": worth}, predict)


def stand_ins(bags: Bags) -> list[Candidate]:
    """One for every member."""
    return [telling(bags, name, worth) for name, worth in zip(member_names(), (0.2, 0.6, 1.0, 0.8), strict=True)]


def test_the_ensembles_are_the_shipped_one_without_each_member_and_with_each_pull() -> None:
    found = ensembles()
    assert member_names() == ("baseline", "scan", "moe", "imagenet")
    assert found[SHIPPED] == Stack(member_names(), PULLS)
    assert list(found) == [
        "ensemble", "ensemble without baseline", "ensemble without scan", "ensemble without moe",
        "ensemble without imagenet", "ensemble, pull 0.0", "ensemble, pull 0.05", "ensemble, pull 0.2",
    ]  # fmt: skip
    for name in member_names():
        assert found[without(name)] == Stack(tuple(one for one in member_names() if one != name), PULLS)
    for pull in PULLS:
        assert found[f"ensemble, pull {pull}"] == Stack(member_names(), (pull,))


@dataclass(frozen=True)
class Reported:
    """A report of all ensembles, of stand-ins for the members and of the clinical models."""

    bags: Bags
    members: list[Candidate]
    outers: list[Outer]
    predictor: Predictor
    nested: Nested
    folder: Path
    text: str

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    folder, bags = tmp_path_factory.mktemp("reported"), clinical_bags(80)
    members = [*stand_ins(bags), count_cut_off(bags), clinical_logistic(bags), clinical_bayes(bags)]
    outers, predictor = outer_folds(bags.labels, 0, 1), Predictor(bags, folder)
    nested = gather(bags, predictor, members, outers, ensembles())
    with shortened():
        text = write_report(nested, bags, folder, {"protocol": "a test"}, 0)
    return Reported(bags, members, outers, predictor, nested, folder, text)


def test_the_report_says_what_the_grey_zone_is_in_these_patients(reported: Reported) -> None:
    """The limit is another hospital's: here reactive patients lie above it."""
    higher = [label for label, row in zip(reported.bags.labels, reported.bags.clinical, strict=True) if row[1] > 7.68]
    reactive = higher.count(0)
    assert 0 < reactive < len(higher)
    assert f"Of these patients, {reactive} of {len(higher)} above it are reactive" in reported.text
    assert "public cohort" not in reported.text


def test_each_ensemble_is_stacked_as_a_bundles_is(reported: Reported) -> None:
    """By hand: the inner folds choose the pull, and a lacking member has no part in anything."""
    labels, nested = reported.bags.labels, reported.nested
    chosen = {(one["model"], one["fold"]): one for one in nested.chosen}
    for outer in reported.outers[:2]:
        inner, held_out = np.empty((4, len(labels))), np.empty((4, len(outer.held_out)))
        folds = np.empty(len(labels), dtype=np.int64)
        for row, member in enumerate(reported.members[:4]):
            for number, task in enumerate(inner_tasks(member, outer)):
                inner[row, task.asked], folds[task.asked] = reported.predictor.predict(task), number
            held_out[row] = reported.predictor.predict(outer_task(member, outer))
        some = outer.training
        for title, stack in ensembles().items():
            rows = [member_names().index(name) for name in stack.members]
            known = inner[rows][:, some]
            pull, loss = choose_pull(known, labels[some], folds[some], stack.members, stack.pulls)
            fitted = fit_ensemble(known, labels[some], stack.members, pull)
            found = nested.predictions[title][0].probability[outer.held_out]
            np.testing.assert_allclose(found, combine(held_out[rows], fitted))
            for point, decided in decide_all(held_out[rows], fitted).items():
                assert nested.decisions[title][point][outer.held_out].tolist() == decided.tolist()
            facts = chosen[title, outer.number]
            assert facts["disagreement"] == fitted.disagreement
            assert (facts["pull"], facts["inner_log_loss"]) == (pull, pytest.approx(loss))
            weights = facts["weights"]
            assert isinstance(weights, dict)
            assert tuple(weights) == stack.members
            assert weights == pytest.approx(dict(fitted.weights))
    assert len({chosen[SHIPPED, number]["pull"] for number in range(5)}) > 1
    free = {SHIPPED, *map(without, member_names())}  # those of one pull choose nothing inside
    of_chosen = [str(chosen[CHOSEN, number]["ensemble"]) for number in range(5)]
    assert set(of_chosen) <= free
    for number, name in enumerate(of_chosen):
        losses = {one: chosen[one, number]["inner_log_loss"] for one in free}
        assert losses[name] == min(losses.values())  # type: ignore[type-var]


def test_the_differences_are_from_the_clinical_values_and_of_the_ensemble_from_itself_without_a_member(
    reported: Reported,
) -> None:
    table, performance = reported.table("differences"), reported.table("performance")
    clinical = ("clinical logistic", "clinical GaussianNB")
    others = [*member_names(), *ensembles(), CHOSEN, "count cut-off"]
    expected = {(one, other) for one in others for other in clinical}
    expected |= {(SHIPPED, f"ensemble without {name}") for name in member_names()}
    assert set(zip(table["model"], table["against"], strict=True)) == expected
    worth = {}
    for name in member_names():
        facts = {"group": "all", "figure": "auc"}
        (row,) = at(table, model=SHIPPED, against=without(name), **facts)
        (mine,), (theirs,) = (at(performance, model=model, **facts) for model in (SHIPPED, without(name)))
        worth[name] = row["value"]
        assert row["value"] == pytest.approx(mine["value"] - theirs["value"])
        assert row["low"] <= row["value"] <= row["high"]
    assert worth["moe"] > worth["baseline"]  # the best member is missed more than the worst


def test_the_spread_of_weights_by_hand() -> None:
    chosen = [{"weights": {"a": a, "b": 1 - a}, "pull": 0.0} for a in (0.1, 0.2, 0.45)]
    assert weight_spread(chosen) == ["a 0.25 [0.10 to 0.45]", "b 0.75 [0.55 to 0.90]"]
    assert weight_spread(chosen[:1]) == ["a 0.10 [0.10 to 0.10]", "b 0.90 [0.90 to 0.90]"]


def test_the_report_says_what_was_chosen_and_how_weights_spread(reported: Reported) -> None:
    (line,) = [line for line in reported.text.splitlines() if line.startswith("- ensemble: ")]
    chosen = [one for one in reported.nested.chosen if one["model"] == SHIPPED]
    assert len(chosen) == 5
    times = Counter(one["pull"] for one in chosen)
    said = ", ".join(f"{pull} {times[pull]} times" for pull in PULLS if times[pull])
    weights = ", ".join(weight_spread(chosen))
    assert line == (
        f"- ensemble: regularisation towards equal weights {said}; mean weights [smallest to largest] {weights}."
    )
    title = "## Compared with sex, count and age alone, and the ensemble with itself without a member"
    assert "| ensemble | ensemble without moe | 1 | all | auc |" in reported.text.split(title)[1].split("\n## ")[0]
    assert json.loads((reported.folder / "figures.json").read_text())["chosen"] == reported.nested.chosen


def test_a_gate_that_nobody_can_open_is_refused(tmp_path: Path) -> None:
    bags = clinical_bags()
    outers, gates = outer_folds(bags.labels, 0, 1), {"gate": ("clinical logistic", "moe")}
    with pytest.raises(UsageError, match="gate: has no member moe"):
        gather(bags, Predictor(bags, tmp_path), [clinical_logistic(bags)], outers, {}, gates)


def test_an_ensemble_of_nobody_is_refused(tmp_path: Path) -> None:
    bags = clinical_bags()
    with pytest.raises(UsageError, match="trio: has no member scan"):
        gather(
            bags,
            Predictor(bags, tmp_path),
            [clinical_logistic(bags)],
            outer_folds(bags.labels, 0, 1),
            {"trio": Stack(("scan",))},
        )


def test_tables_say_what_scikit_learn_says(tmp_path: Path) -> None:
    bags = clinical_bags(80)
    nested = gather(
        bags,
        Predictor(bags, tmp_path),
        [count_cut_off(bags), clinical_logistic(bags)],
        outer_folds(bags.labels, 0, 2),
        {"ensemble": Stack(("count cut-off", "clinical logistic"))},
    )
    table = performance_table(nested, bags, 0)
    for model, repeats in nested.predictions.items():
        for group, chosen in subgroups(bags).items():
            rows = at(table, model=model, group=group, figure="auc")
            if len(np.unique(bags.labels[chosen])) < 2:
                assert not rows
                continue
            expected = np.mean([roc_auc_score(bags.labels[chosen], one.probability[chosen]) for one in repeats])
            assert rows[0]["value"] == pytest.approx(expected)
            assert (rows[0]["patients"], rows[0]["malignant"]) == (chosen.sum(), bags.labels[chosen].sum())
            assert rows[0]["low"] <= rows[0]["value"] <= rows[0]["high"]
    mine, theirs = (at(table, model=model, group="all", figure="auc")[0] for model in ("ensemble", "clinical logistic"))
    facts = {"model": "ensemble", "against": "clinical logistic", "group": "all", "figure": "auc"}
    (difference,) = at(difference_table(nested, bags, 0), **facts)
    assert difference["value"] == pytest.approx(mine["value"] - theirs["value"])
    points = operating_point_table(nested, bags, 0)
    assert points.groupby(["operating_point", "label"])["value"].sum().tolist() == pytest.approx([1] * 9)
    decided = nested.decisions["ensemble"]["balanced"]
    (missed,) = at(points, operating_point="balanced", label="malignant", decision="reactive")
    assert missed["value"] == pytest.approx(np.mean(decided[bags.labels == 1] == "reactive"))


def at(table: pd.DataFrame, **facts: str) -> list[dict[str, Any]]:
    """The rows of the table with these values."""
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    return [row for row in rows if all(row[name] == value for name, value in facts.items())]


def test_subgroups_of_a_kind_have_everybody_once() -> None:
    groups = list(subgroups(clinical_bags(40)).values())
    for parts in (groups[1:3], groups[5:7], groups[7:10], groups[10:13]):
        assert (np.sum(parts, axis=0) == 1).all()
    assert (groups[3] | groups[4] == groups[1]).all()


def test_inductive_classes_come_from_the_training_patients_pictures_alone(tmp_path: Path) -> None:
    bags = make_bags([0, 1, 1, 0], [2, 3, 1, 2])
    trained: list[tuple[list[str], int]] = []

    def train_scan(of: Bags, run: Path, recipe: object, seed: int, device: object) -> None:
        trained.append((of.patient_ids, seed))
        if of.patient_ids == ["p0", "p1"] and seed < 5:
            raise Collapse("all in one")
        (run / "scan").mkdir(parents=True)
        (run / "scan" / "stages.csv").write_text("")
        (run / "scan" / "fusion.json").write_text(json.dumps([1, 0, 1]))

    def look(network: object, pictures: torch.Tensor, device: object) -> tuple[None, torch.Tensor]:
        return None, torch.eye(3)[torch.arange(len(pictures)) % 3][None]

    def embed_all(path: Path, crops: torch.Tensor, device: object) -> torch.Tensor:
        """Features that show on which patients the network was trained, and which picture was processed."""
        whose = int(path.parents[2].name[:6], 16) / 1e6
        return torch.stack([torch.full((len(crops),), whose), torch.arange(len(crops)) ** 2.0], dim=1)

    with (
        patch.object(inductive, "train_scan", train_scan),
        patch.object(inductive, "load_scan", lambda path: path),
        patch.object(inductive, "look", look),
        patch.object(inductive, "load_backbone", lambda path: SimpleNamespace(to=lambda device: path)),
        patch.object(inductive, "embed_all", embed_all),
    ):
        looks = inductive_looks(bags, tmp_path, SMALL.scan, 4, CPU)
        found = looks(np.array([3, 1]))
        again = looks(np.array([1, 3]))
        other = looks(np.array([0, 1]))  # collapses with the first seed
        with pytest.raises(Collapse, match="SCAN collapsed on 2 patients with 3 seeds"):
            inductive_looks(bags, tmp_path / "other", SMALL.scan, 0, CPU)(np.array([0, 1]))
    assert trained[:3] == [(["p1", "p3"], 4), (["p0", "p1"], 4), (["p0", "p1"], 5)]
    assert len(trained) == 6
    assert found.classes.tolist() == [1, 0, 1, 1, 0, 1, 1, 0, 1]  # for all eight pictures, and a blank one
    np.testing.assert_array_equal(again.simclr, found.simclr)
    assert (found.simclr[:, 0] != other.simclr[:, 0]).all()  # from a different network
    np.testing.assert_allclose(found.simclr[:, 1], [0.5, (4 + 9 + 16) / 3, 25, (36 + 49) / 2, 0])
    np.testing.assert_allclose(found.simclr[:, 3], [0.5, float(np.std([4, 9, 16])), 0, 6.5, 0], rtol=1e-6)


def test_two_calls_that_need_the_same_scan_train_it_once(tmp_path: Path) -> None:
    bags = make_bags([0, 1], [1, 1])
    trained: list[int] = []

    def look(*_: object) -> Look:
        time.sleep(0.2)
        return Look(np.array([0, 1]), np.ones((2, 4), dtype=np.float32))

    with (
        patch.object(inductive, "_trained", lambda *_: trained.append(1)),
        patch.object(inductive, "_look", look),
        ThreadPoolExecutor(2) as pool,
    ):
        calls = [inductive_looks(bags, tmp_path, SMALL.scan, 0, CPU) for _ in range(2)]
        found = list(pool.map(lambda looks: looks(np.array([0, 1])), calls))
    assert trained == [1]
    np.testing.assert_array_equal(found[0].simclr, found[1].simclr)


def test_a_model_on_simclr_sees_what_its_own_training_patients_taught_simclr() -> None:
    bags = clinical_bags(60)
    rng = np.random.default_rng(0)
    asked_for: list[list[int]] = []

    def looks(training: Indices) -> Look:
        asked_for.append(training.tolist())
        return Look(np.zeros(0, dtype=np.int64), drawn[len(training)])

    drawn = {number: rng.normal(size=(61, 12)).astype(np.float32) for number in (30, 40)}
    member = simclr_member(bags, "SimCLR", looks, {"seed": 3})
    assert not member.repeated
    assert member.facts["seed"] == 3
    everybody = np.arange(60)
    for number, seen in drawn.items():
        expected = embedded_on(bags, seen, everybody[:number], everybody[number:])
        found = member.predict(everybody[:number], everybody[number:], Path())
        assert isinstance(found, Mapping)
        np.testing.assert_array_equal(found[OWN], expected)
        assert set(found) == {OWN, SWAPPED, BLANK}
    assert asked_for == [everybody[:30].tolist(), everybody[:40].tolist()]


def embedded_on(bags: Bags, seen: npt.NDArray[np.float32], training: Indices, asked: Indices) -> Floats:
    """Logistic regression on clinical values and principal components of patient features."""
    features = np.concatenate([leads.clinical_features(bags), seen[:60].astype(np.float64)], axis=1)
    model = fit_logistic(features[training], bags.labels[training], seen.shape[1])
    return np.asarray(model.predict_proba(features[asked])[:, 1])


def test_the_mean_of_members_is_of_their_trainings_and_nothing_is_trained_for_it(tmp_path: Path) -> None:
    bags = clinical_bags()
    calls: list[tuple[Indices, Indices]] = []
    one, other = recorded(calls, "a", repeated=False), Candidate("b", {"seed": 1}, lambda _, asked, __: asked / 500)
    mean = MeanOf("both", (one, replace(other, repeated=False)))
    outers = outer_folds(bags.labels, 0, 2)
    assert [task.member.name for task in all_tasks([mean], outers)] == [*"aaaabbbb"] * 5
    nested = gather(bags, Predictor(bags, tmp_path), [one, mean], outers, {})
    assert len(calls) == 20
    assert {model: len(repeats) for model, repeats in nested.predictions.items()} == {"a": 1, "both": 1}
    halves = gather(
        bags,
        Predictor(bags, tmp_path),
        [Candidate("half", {}, lambda _, asked, __: np.multiply(asked, 0.0015, dtype=np.float64))],
        outers,
        {},
    )
    np.testing.assert_allclose(nested.predictions["both"][0].probability, halves.predictions["half"][0].probability)


# Enough to run: what these trainings learn is tested elsewhere.
BRIEF = replace(
    SMALL_BATCHES,
    moe=replace(SHORT, late_steps=5, norm_images=8),
    experts=replace(SMALL_BATCHES.experts, fit=replace(SMALL_BATCHES.experts.fit, epochs=1), late_steps=5, seeds=1),
)
OF_EVALUATED = (*DATE, "--recipe", "small", "--epochs", "1", "--images-per-patient", "1")


@contextlib.contextmanager
def shortened() -> Iterator[None]:
    """Fewer resamples, and nothing to choose from for a regression: both are tested elsewhere."""
    with (
        patch("train.core.performance.RESAMPLES", 100),
        patch("train.members.linear.STRENGTHS", (0.3,)),
        patch("train.members.linear.COMPONENTS", (10,)),
    ):
        yield


@dataclass(frozen=True)
class TrueKinds:
    """In place of trained cell classes: the kind of which each picture was drawn, and for a blank one kind 0."""

    kinds: dict[bytes, int]  # by the picture's features
    collapsed: str = ""

    def of(self, pictures: npt.NDArray[np.float32]) -> Indices:
        return np.array([self.kinds.get(row.tobytes(), 0) for row in pictures])


@contextlib.contextmanager
def true_kinds(run: Path) -> Iterator[None]:
    """The cell classes of the scan member are the true kinds of the synthetic cells."""
    bags, drawn = load_crops(run), {one.patient_id: one.kinds for one in drawn_patients()}
    seen = embed_pictures(bags, run, CPU, MAGNIFICATION)
    kinds = [kind for patient in bags.patient_ids for kind in drawn[patient]]
    assert len(kinds) == len(bags.crops)
    known = TrueKinds({row.tobytes(): kind for row, kind in zip(seen.pictures, kinds, strict=True)})
    assert len(known.kinds) == len(kinds)
    with patch.object(cells_member, "train_cells", lambda *_: known):
        yield


def drawn_patients() -> list[SyntheticPatient]:
    return [clear_cut(patient, 3) for patient in make_patients(40, 3, images=(3, 4))]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """`evaluate --protocol nested` in two shares, with the true kinds of the synthetic cells as classes."""
    folder = tmp_path_factory.mktemp("nested")
    write_cohort(folder / "patients", drawn_patients(), seed=3)
    assert train("crops", folder / "patients", folder / "run", *OF_EVALUATED, small=BRIEF).code == 0
    nested = ("evaluate", folder / "patients", folder / "run", *OF_EVALUATED, "--protocol", "nested", "--repeats", "2")
    with shortened(), true_kinds(folder / "run"):
        for part in ("1/2", "2/2"):
            call = train(*nested, "--part", part, small=BRIEF)
            assert (call.code, call.output) == (0, "")
        call = train(*nested, small=BRIEF)
    assert call.code == 0, call.errors
    return folder / "patients", folder / "run", call.output


def test_the_report_is_written_and_says_how_it_came_about(evaluated: tuple[Path, Path, str]) -> None:
    _, run, output = evaluated
    folder = run / "nested"
    assert output.strip() == (folder / "nested.md").read_text().strip()
    for said in (
        "5 outer folds",
        "transductive",
        "chosen outside",
        "## Operating points",
        "men: ",
        "regularisation towards",
    ):
        assert said in output
    names = {path.name for path in folder.iterdir()}
    assert names >= {"performance.csv", "differences.csv", "figures.json", "decision_curve.png", "auc.png"}
    figures = json.loads((folder / "figures.json").read_text())
    table = pd.read_csv(folder / "performance.csv")
    assert len(figures["performance"]) == len(table)
    assert table.groupby("model")["repeats"].first().to_dict() == {
        "count cut-off": 2, "clinical logistic": 2, "clinical GaussianNB": 2, "scan": 2, "moe": 2, "imagenet": 2,
        "baseline": 1, **dict.fromkeys(ensembles(), 1), "ensemble without baseline": 2, CHOSEN: 1,
    }  # fmt: skip
    scan = table[(table["model"] == "scan") & (table["group"] == "all") & (table["figure"] == "auc")]
    assert scan["value"].item() > 0.9  # its classes are the truth


def test_an_inductive_report_stands_beside_the_other(evaluated: tuple[Path, Path, str]) -> None:
    """SCAN is not trained here: its output is random."""
    patients, run, transductive = evaluated
    asked_for: list[list[int]] = []

    def inductive_looks(bags: Bags, *_: object) -> Callable[[Indices], Look]:
        rng = np.random.default_rng(5)
        classes, simclr = rng.integers(0, 15, len(bags.crops) + 1), rng.normal(size=(len(bags) + 1, 8))
        return lambda training: asked_for.append(training.tolist()) or Look(classes, simclr.astype(np.float32))  # type: ignore[func-returns-value]

    options = (*OF_EVALUATED, "--protocol", "nested", "--repeats", "2")  # as above, so that its trainings are reused
    with (
        patch("train.evaluation.nested.models.inductive_looks", inductive_looks),
        patch.object(cells_member, "train_cells", side_effect=AssertionError),
        shortened(),
    ):
        call = train("evaluate", patients, run, *options, "--inductive", small=BRIEF)
    assert call.code == 0, call.errors
    assert (run / "nested/nested.md").read_text().strip() == transductive.strip()
    assert (run / "nested_inductive/nested.md").read_text().strip() == call.output.strip()
    assert IN_TURN in call.output
    assert TRANSDUCTIVE not in call.output
    table = pd.read_csv(run / "nested_inductive/performance.csv")
    seen = table.groupby("model")["repeats"].first()
    assert seen[[OWN_NETWORK, SIMCLR, *with_simclr(), *GATED_SIMCLR, "ensemble", "scan"]].tolist() == [1] * 5 + [2]
    assert len(asked_for) == 2 * 20  # by both models that need SCAN, for every training
    assert len({tuple(one) for one in asked_for}) == 20


def test_the_card_takes_what_the_protocol_wrote(evaluated: tuple[Path, Path, str]) -> None:
    run = evaluated[1]
    found = json.loads((run / "nested/figures.json").read_text())
    recipe = json.loads((run / "options.json").read_text())["recipe"]
    pictures = np.diff(load_crops(run).offsets).tolist()
    used = scaled(adapted(BRIEF, 1, 1), pictures, given=True)
    assert recipe["name"] == used.name
    for name, known in registry.digests(used, 0).items():
        assert found["facts"][name] == known
    table = pd.read_csv(run / "nested/performance.csv")
    cells = []
    for figure in SHOWN:
        rows = at(table, model="ensemble", group="all", figure=figure)  # none if the metric is undefined
        cells.append("".join(f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for row in rows))
    expected = "| ensemble (1x) | " + " | ".join(cells) + " |"
    assert expected in [line for part in card_figures.nested(found) for line in part.splitlines()]


def test_held_out_probabilities_are_there_for_everybody(evaluated: tuple[Path, Path, str]) -> None:
    table = pd.read_csv(evaluated[1] / "nested/patients.csv")
    assert len(table) == 40
    assert table.notna().all(axis=None)
    curve = pd.read_csv(evaluated[1] / "nested/decision_curve.csv")
    prevalence = table["label"].mean()
    assert curve["everybody"].to_numpy() == pytest.approx(
        (prevalence - (1 - prevalence) * curve["threshold"] / (1 - curve["threshold"])).to_numpy()
    )


@pytest.mark.parametrize("part", ["0/2", "3/2", "x", "1", "²/2"])
def test_a_share_that_is_none_is_wrong_usage(evaluated: tuple[Path, Path, str], part: str) -> None:
    patients, run, _ = evaluated
    call = train("evaluate", patients, run, *DATE, "--protocol", "nested", "--part", part)
    assert call.code == 2
    assert "is not I/N" in call.errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nested", "--model", "moe"), "--model can only be used with --protocol report"),
        (("report", "--part", "1/2"), "can only be used with --protocol nested"),
        (("nested", "--leads", "--inductive"), "cannot be combined with --inductive"),
        (("report", "--deep-leads"), "can only be used with --protocol nested"),
        (("nested", "--deep-leads"), "--deep-leads requires --leads"),
        (("nested", "--member", "moe", "--leads"), "cannot be combined with --leads"),
        (("nested", "--leave-one-centre-out", "--inductive"), "cannot be combined with --leads or --inductive"),
        (("report", "--leave-one-centre-out"), "can only be used with --protocol nested"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    evaluated: tuple[Path, Path, str], options: tuple[str, ...], said: str
) -> None:
    patients, run, _ = evaluated
    call = train("evaluate", patients, run, *DATE, "--protocol", *options)
    assert call.code == 2
    assert said in call.errors


def test_leads_need_the_scan_that_trains_a_network_of_its_own(evaluated: tuple[Path, Path, str]) -> None:
    patients, run, _ = evaluated
    assert not (run / "scan").exists()  # the report above needed none
    call = train("evaluate", patients, run, *OF_EVALUATED, "--protocol", "nested", "--leads", small=BRIEF)
    assert call.code == 2
    assert "has no SCAN network. Run `python -m train scan` first" in call.errors


def test_a_figure_a_model_cannot_have_is_left_out() -> None:
    bags = clinical_bags(40)
    everybody: npt.NDArray[np.bool_] = np.ones(40, dtype=bool)
    nested = Nested({"flat": [Predictions(bags.labels, np.full(40, 0.5), everybody)]}, {}, [])
    table = performance_table(nested, bags, 0)
    assert "negative_predictive_value" not in set(table["figure"])
    assert table[(table["group"] == "all") & (table["figure"] == "auc")]["value"].item() == 0.5


def test_a_group_of_one_class_has_no_figure_that_compares_classes() -> None:
    bags = replace(clinical_bags(40), clinical=np.tile(np.array([1, 4, 50], np.float32), (40, 1)))
    bags.clinical[bags.labels == 1, 1] = 9  # everybody above the grey zone is malignant, nobody in it
    probability = np.random.default_rng(0).random(40)
    nested = Nested({"any": [Predictions(bags.labels, probability, probability > 0.5)]}, {}, [])
    table = performance_table(nested, bags, 0)
    grey = set(table[table["group"].str.startswith("grey")]["figure"])
    assert grey == {"specificity", "negative_predictive_value", "positive_predictive_value", "brier_score"}
    assert "auc" in set(table[table["group"] == "all"]["figure"])


def seeing(bags: Bags, name: str = "seeing", *, worth: float = 4.0) -> Candidate:
    """A model whose pictures tell the label, as far as they are worth something; swapped, they tell another's."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        rng = np.random.default_rng(int(asked[0]))
        age = 0.5 * (bags.clinical[:, 2] - 60) / 8 + 0.3 * rng.normal(size=len(bags))
        told = np.append(worth * (bags.labels - 0.5), 0.0)  # the blank picture tells nothing
        shown = whose_pictures(asked, bags.patient_ids)
        return {column: expit(age[asked] + told[whose]) for column, whose in shown.items()}

    return Candidate(name, {"worth": worth}, predict)


def test_what_a_model_loses_by_other_pictures_is_what_its_pictures_are_worth(tmp_path: Path) -> None:
    bags = clinical_bags(80, strength=1.0)
    members = [clinical_logistic(bags), seeing(bags), seeing(bags, "not seeing", worth=0.0)]
    ensembles = {
        "ensemble": Stack(("clinical logistic", "seeing")),
        "clinical alone": Stack(("clinical logistic",), (0.0,)),
    }
    gates = {"gate": ("seeing", "clinical logistic")}
    nested = gather(bags, Predictor(bags, tmp_path), members, outer_folds(bags.labels, 0, 1), ensembles, gates)
    assert set(nested.blind) == {"seeing", "not seeing", "ensemble", "gate"}
    table = blind_table(nested, bags, 0).query("group == 'all' and figure == 'auc'").set_index(["model", "pictures"])
    performance = performance_table(nested, bags, 0).query("group == 'all' and figure == 'auc'").set_index("model")
    for model, sight in table.index:
        row = table.loc[(model, sight)]
        assert row["value"] + row["lost"] == pytest.approx(performance.loc[model, "value"])
        assert row["repeats"] == 1
        if model == "not seeing":
            assert row[["lost", "lost_low", "lost_high"]].tolist() == [0, 0, 0]
        else:
            assert row["lost_low"] > 0.05
    # a patient who sees another's picture has that one's label as often as not; one who sees none has the age alone
    auc = table["value"].to_dict()
    assert auc["seeing", "swapped"] < auc["seeing", "blank"]


def test_swapped_and_blank_pictures_meet_the_same_calibration_weights_and_thresholds(tmp_path: Path) -> None:
    """By hand: what was fitted on the inner folds by the own pictures is applied."""
    bags = clinical_bags(80, strength=1.0)
    members, outers = [clinical_logistic(bags), seeing(bags, worth=1.0)], outer_folds(bags.labels, 0, 1)
    predictor = Predictor(bags, tmp_path)
    nested = gather(bags, predictor, members, outers, {"ensemble": Stack(("clinical logistic", "seeing"), (0.1,))})
    at_one_half = 0
    for outer in outers:
        inner = np.empty((2, len(outer.training)))
        for row, member in enumerate(members):
            for task in inner_tasks(member, outer):
                inner[row, np.searchsorted(outer.training, task.asked)] = predictor.predict(task)
        fitted = fit_ensemble(inner, bags.labels[outer.training], ("clinical logistic", "seeing"), 0.1)
        threshold = best_threshold(combine(inner, fitted), bags.labels[outer.training])
        asked = [outer_task(member, outer) for member in members]
        assert predictor.predict_blind(asked[0]) == {}
        for sight in (SWAPPED, BLANK):
            rows = np.stack([predictor.predict(asked[0]), predictor.predict_blind(asked[1])[sight]])
            expected = combine(rows, fitted)
            (found,) = nested.blind["ensemble"][sight]
            np.testing.assert_allclose(found.probability[outer.held_out], expected)
            np.testing.assert_array_equal(found.called[outer.held_out], expected >= threshold)
            at_one_half += int(((expected >= 0.5) != (expected >= threshold)).sum())
    assert at_one_half  # the threshold is not simply one half


def test_the_report_says_what_pictures_are_worth(tmp_path: Path) -> None:
    bags = clinical_bags(80, strength=1.0)
    members = [clinical_logistic(bags), seeing(bags)]
    ensembles = {"ensemble": Stack(("clinical logistic", "seeing"), (0.1,))}
    nested = gather(bags, Predictor(bags, tmp_path), members, outer_folds(bags.labels, 0, 1), ensembles)
    with shortened():
        text = write_report(nested, bags, tmp_path, {"protocol": "a test"}, 0)
    figures = json.loads((tmp_path / "figures.json").read_text())
    pd.testing.assert_frame_equal(pd.DataFrame(figures["blind"]), pd.read_csv(tmp_path / "blind.csv"))
    row = next(one for one in figures["blind"] if one["pictures"] == "blank" and one["figure"] == "auc")
    line = next(line for line in text.splitlines() if line.startswith("| seeing (1x) | blank | all |"))
    assert f"| {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] " in line
    assert f"| {row['lost']:+.3f} [{row['lost_low']:+.3f}, {row['lost_high']:+.3f}] " in line
    only_clinical = gather(bags, Predictor(bags, tmp_path), members[:1], outer_folds(bags.labels, 0, 1), {})
    assert without_seeing(blind_table(only_clinical, bags, 0)) == "No model sees pictures."


def test_one_member_is_evaluated_alone_without_scan_and_beside_the_report_of_all(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    run = with_features(trained_run, tmp_path / "run")
    with shortened():
        call = train(
            "evaluate", trained_run.patients, run, *DATE, "--recipe", "small", "--protocol", "nested",
            "--repeats", "1", "--member", "imagenet",
        )  # fmt: skip
    assert call.code == 0, call.errors
    figures = json.loads((run / "nested_imagenet/figures.json").read_text())
    assert {row["model"] for row in figures["performance"]} == {
        "count cut-off", "clinical logistic", "clinical GaussianNB", "imagenet",
    }  # fmt: skip
    assert {(row["model"], row["pictures"]) for row in figures["blind"]} == {
        ("imagenet", "swapped"), ("imagenet", "blank"),
    }  # fmt: skip
    assert not (run / "nested/figures.json").exists()  # the report of all members, which the card reads
    assert "## Operating points\n\nNone." in call.output


def test_an_ensemble_with_a_member_that_still_sees_the_right_pictures_is_not_called_blind(tmp_path: Path) -> None:
    bags = clinical_bags(80, strength=1.0)
    partly = Candidate("partly", {}, lambda _, asked, __: np.full(len(asked), 0.5) + 0.3 * bags.labels[asked])
    members = [clinical_logistic(bags), seeing(bags), partly]
    ensembles = {
        "blind": Stack(("clinical logistic", "seeing"), (0.1,)),
        "not blind": Stack(("seeing", "partly"), (0.1,)),
    }
    nested = gather(bags, Predictor(bags, tmp_path), members, outer_folds(bags.labels, 0, 1), ensembles)
    assert set(nested.blind) == {"seeing", "blind"}
