"""The mixture of experts on frozen features: by value, what each expert finds, and who is seen in training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, nn

from tests.train.bags import make_bags
from train.core.arrays import Floats, Indices
from train.core.fitting import FitRecipe, Job, fit
from train.data.bags import Bags
from train.data.whose_pictures import BLANK, COLUMNS, NOBODY, OWN, SWAPPED, whose_pictures
from train.members import experts, registry
from train.members.embedding import Magnification
from train.members.experts import (
    OUTPUTS,
    Batch,
    Committee,
    Experts,
    candidate,
    files,
    judge,
    load_experts,
    numbers,
    train,
    train_committee,
)
from train.members.features import Features
from train.members.gated import GatedOutput
from train.members.recipes import EXPERTS, SMALL, BayesRecipe, ExpertsRecipe, Recipe
from train.members.training import MemberJob, NestedJob, digest

CPU = torch.device("cpu")
PATIENTS, PICTURES, WIDTH = 60, 4, 24
TRAINING, HELD_OUT = np.arange(40), np.arange(40, PATIENTS)
QUICK = replace(  # few features need larger steps; the clinical side's are as in the recipe
    EXPERTS,
    fit=replace(EXPERTS.fit, epochs=12, learning_rate=1e-2),
    clinical_rate=EXPERTS.clinical_rate / 10,
    late_steps=100,
    seeds=1,
)
BEFORE_LATE = ("scale.", "centre", "width", "image_map.", "image_expert.", "gate_map.")  # not refitted late


def drawn(*, pictures: float = 0.0, age: float = 0.0, seed: int = 0) -> tuple[Bags, Features]:
    """Patients whose pictures' features, or whose ages, tell the label as far as they are worth something."""
    rng = np.random.default_rng(seed)
    bags = make_bags(rng.permutation([0, 1] * (PATIENTS // 2)).tolist(), [PICTURES] * PATIENTS, seed=seed + 100)
    bags.clinical[:, 2] = 60 + 10 * rng.normal(size=PATIENTS) + 10 * age * (bags.labels - 0.5)
    features = rng.normal(size=(PATIENTS * PICTURES, WIDTH)) * np.linspace(0.1, 1, WIDTH) + 0.5
    features[:, -6:] += pictures * bags.labels[bags.patient_of_image()][:, None]
    return bags, Features(features.astype(np.float32), np.full(WIDTH, 0.7, dtype=np.float32))


@pytest.fixture(scope="module")
def telling() -> tuple[Bags, Features]:
    return drawn(pictures=0.7, age=1.0)


def softmax(logits: Floats) -> Floats:
    return np.asarray(np.exp(logits) / np.exp(logits).sum(), dtype=np.float64)


def slow_output(network: Experts, means: Floats, clinical: Floats) -> dict[str, float]:
    """One patient, from mean features (WIDTH,) and raw clinical values (3,)."""
    parts = {name: value.detach().double().numpy() for name, value in network.state_dict().items()}

    def linear(values: Floats, name: str) -> Floats:
        return np.asarray([row @ values for row in parts[f"{name}.weight"]] + parts[f"{name}.bias"])

    scaled = (np.array([clinical[0], np.log(clinical[1]), clinical[2]]) - parts["scale.low"]) / parts["scale.range"]
    seen = (means - parts["centre"]) / parts["width"]
    image = softmax(linear(linear(seen, "image_map"), "image_expert"))[1]
    hidden = 1 / (1 + np.exp(-linear(scaled, "clinical_expert.0")))
    clinic = softmax(linear(hidden, "clinical_expert.2"))[1]
    gate = softmax(linear(np.concatenate([np.tanh(linear(seen, "gate_map")), scaled]), "gate.1"))[0]
    return {"probability": gate * image + (1 - gate) * clinic, "image": image, "clinical": clinic, "gate": gate}


def slow_judge(committee: Committee, seen: Features, bags: Bags, asked: Indices, shown: Indices) -> dict[str, Floats]:
    """Patient by patient, picture by picture, mixture by mixture."""
    found: dict[str, list[float]] = {name: [] for name in OUTPUTS}
    for patient, whose in zip(asked, shown, strict=True):
        own = [row for row, owner in zip(seen.pictures, bags.patient_of_image(), strict=True) if owner == whose]
        means = np.mean([seen.blank] if whose == NOBODY else own, axis=0, dtype=np.float64)
        clinical = bags.clinical[patient].astype(np.float64)
        outputs = [slow_output(each, means, clinical) for each in committee.each]  # type: ignore[arg-type]
        for name, values in found.items():
            values.append(float(np.mean([output[name] for output in outputs])))
    return {name: np.array(values) for name, values in found.items()}


def same(one: nn.Module, other: nn.Module, parts: tuple[str, ...] = ("",)) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    return all(torch.equal(mine[name], theirs[name]) for name in mine if name.startswith(parts))


def test_the_network_is_both_experts_and_the_gate_by_value(telling: tuple[Bags, Features]) -> None:
    bags, seen = telling
    torch.manual_seed(5)
    committee = Committee(experts.ExpertsDimensions(3, WIDTH))
    means = bags.means(seen.pictures)
    for each in committee.each:
        assert isinstance(each, Experts)
        each.fit_scales(torch.from_numpy(means[TRAINING]).float(), torch.from_numpy(bags.clinical[TRAINING]))
        for parameter in each.parameters():
            nn.init.normal_(parameter, std=3)
    committee.eval()
    found = judge(committee, means[HELD_OUT], bags.clinical[HELD_OUT])
    for name, expected in slow_judge(committee, seen, bags, HELD_OUT, HELD_OUT).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
        assert np.ptp(expected) > 0.1
    alone = judge(Committee(experts.ExpertsDimensions(3, WIDTH)).eval(), means[HELD_OUT], bags.clinical[HELD_OUT])
    assert not np.allclose(alone["probability"], found["probability"], atol=0.01)


def test_the_outputs_are_means_over_the_mixtures_whose_seeds_follow_each_other(telling: tuple[Bags, Features]) -> None:
    bags, seen = telling
    committee = train_committee(bags, seen, TRAINING, replace(QUICK, seeds=3), 7)
    means = bags.means(seen.pictures)[HELD_OUT]
    each = []
    for number, mixture in enumerate(committee.each):
        alone = train_committee(bags, seen, TRAINING, QUICK, 7 + number)
        assert same(alone.each[0], mixture)
        each.append(judge(alone, means, bags.clinical[HELD_OUT]))
    assert len(each) == 3
    for name, found in judge(committee, means, bags.clinical[HELD_OUT]).items():
        np.testing.assert_allclose(found, np.mean([one[name] for one in each], axis=0), atol=1e-6)
    assert np.abs(each[0]["probability"] - each[1]["probability"]).max() > 1e-3


def test_the_same_seed_gives_the_same_network_whatever_ran_before(telling: tuple[Bags, Features]) -> None:
    one = train_committee(*telling, TRAINING, QUICK, 0)
    torch.rand(9)
    assert same(train_committee(*telling, TRAINING, QUICK, 0), one)
    assert not same(train_committee(*telling, TRAINING, QUICK, 1), one)
    assert not one.training


def test_scales_are_the_training_patients(telling: tuple[Bags, Features]) -> None:
    """All features share one width: with their own, those that hardly differ would weigh most."""
    bags, seen = telling
    network = train_committee(bags, seen, TRAINING, QUICK, 0).each[0]
    assert isinstance(network, Experts)
    means = np.stack([seen.pictures[a:b].mean(axis=0) for a, b in bags.ranges()])[TRAINING].astype(np.float64)
    np.testing.assert_allclose(network.centre, means.mean(axis=0), atol=1e-5)
    assert network.width.shape == ()
    assert network.width.item() == pytest.approx(np.sqrt(((means - means.mean(axis=0)) ** 2).mean()), rel=1e-5)
    raw = bags.clinical[TRAINING].astype(np.float64)
    raw[:, 1] = np.log(raw[:, 1])
    np.testing.assert_allclose(network.scale.low, raw.min(axis=0), rtol=1e-6)
    np.testing.assert_allclose(network.scale.range, np.ptp(raw, axis=0), rtol=1e-5)


def test_nothing_of_patients_that_are_not_trained_on_reaches_the_network(telling: tuple[Bags, Features]) -> None:
    bags, seen = telling
    one = train_committee(bags, seen, TRAINING, QUICK, 0)
    pictures, clinical, labels = seen.pictures.copy(), bags.clinical.copy(), bags.labels.copy()
    pictures[bags.patient_of_image() >= 40] *= 7
    clinical[40:] *= 3
    labels[40:] = 1 - labels[40:]
    other = replace(bags, clinical=clinical, labels=labels)
    assert same(train_committee(other, replace(seen, pictures=pictures), TRAINING, QUICK, 0), one)
    clinical[3, 2] += 1
    assert not same(train_committee(other, seen, TRAINING, QUICK, 0), one)


def test_pictures_of_one_colour_do_no_harm() -> None:
    """All features alike: their width is not 0."""
    bags, seen = drawn(age=2.0)
    flat = replace(seen, pictures=np.ones_like(seen.pictures))
    found = judge(train_committee(bags, flat, TRAINING, QUICK, 0), np.ones((PATIENTS, WIDTH)), bags.clinical)
    assert all(np.isfinite(values).all() for values in found.values())
    assert roc_auc_score(bags.labels[HELD_OUT], found["clinical"][HELD_OUT]) > 0.8


def areas(bags: Bags, seen: Features, recipe: ExpertsRecipe = QUICK) -> dict[str, float]:
    committee = train_committee(bags, seen, TRAINING, recipe, 0)
    found = judge(committee, bags.means(seen.pictures)[HELD_OUT], bags.clinical[HELD_OUT])
    return {name: float(roc_auc_score(bags.labels[HELD_OUT], found[name])) for name in OUTPUTS[:3]}


def test_what_ages_tell_is_found_by_the_clinical_expert() -> None:
    found = areas(*drawn(age=4.0))
    assert found["clinical"] > 0.95
    assert abs(found["image"] - 0.5) < 0.25
    assert found["probability"] > 0.9


def test_what_pictures_tell_is_found_by_the_image_expert() -> None:
    found = areas(*drawn(pictures=1.5))
    assert found["image"] > 0.95
    assert abs(found["clinical"] - 0.5) < 0.25
    assert found["probability"] > 0.9


def test_the_late_fit_lowers_the_clinical_loss_and_leaves_the_image_side(telling: tuple[Bags, Features]) -> None:
    bags, seen = telling
    early, late = (train_committee(bags, seen, TRAINING, replace(QUICK, late_steps=steps), 0) for steps in (0, 300))
    means = bags.means(seen.pictures)[TRAINING]
    losses = [
        log_loss(bags.labels[TRAINING], judge(one, means, bags.clinical[TRAINING])["clinical"]) for one in (early, late)
    ]
    assert losses[1] < losses[0] - 0.005
    assert same(early.each[0], late.each[0], BEFORE_LATE)
    for part in ("clinical_expert.", "gate."):
        assert not same(early.each[0], late.each[0], (part,))


def test_the_gate_is_drawn_to_one_half_in_training_and_after_it(telling: tuple[Bags, Features]) -> None:
    bags, seen = telling
    for late_steps in (0, 100):
        gates = []
        for pull in (0.0, 100.0):
            recipe = replace(QUICK, gate_pull=pull, late_steps=late_steps)
            committee = train_committee(bags, seen, TRAINING, recipe, 0)
            gates.append(judge(committee, bags.means(seen.pictures), bags.clinical)["gate"])
        assert np.abs(gates[0] - 0.5).max() > 0.15
        assert np.abs(gates[1] - 0.5).max() < 0.05


@pytest.mark.parametrize("malignant", [10, 30])
def test_both_classes_weigh_alike(malignant: int) -> None:
    """Where nothing tells, everybody is judged at one half, whatever the share of malignant patients."""
    bags, seen = drawn(seed=1)
    labels = np.zeros(PATIENTS, dtype=np.int64)
    labels[TRAINING[:malignant]] = 1
    committee = train_committee(replace(bags, labels=labels), seen, TRAINING, replace(QUICK, late_steps=300), 0)
    found = judge(committee, bags.means(seen.pictures)[TRAINING], bags.clinical[TRAINING])["clinical"]
    of_classes = [found[labels[TRAINING] == label].mean() for label in (0, 1)]
    assert np.mean(of_classes) == pytest.approx(0.5, abs=0.03)


@dataclass
class Fits:
    """Stands in the place of the training loop and keeps what it was given."""

    batches: list[Callable[[np.random.Generator], Iterator[Batch]]] = field(default_factory=list)
    loss: list[Callable[[Any, Batch], Tensor]] = field(default_factory=list)
    rates: list[dict[str, tuple[float, float]]] = field(default_factory=list)  # learning rate and decay by parameter

    def __call__(
        self, network: Experts, batches: Any, loss: Any, recipe: FitRecipe, job: Job, *, parameters: Any, observe: None
    ) -> Experts:
        assert job.checkpoint is job.history is observe is None
        self.batches.append(batches)
        self.loss.append(loss)
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        for group in parameters:
            rate = (group.get("lr", recipe.learning_rate), group.get("weight_decay", recipe.weight_decay))
            self.rates.append({names[id(one)]: rate for one in group["params"]})
        return fit(network, batches, loss, recipe, job, parameters=parameters)


def trained_with(bags: Bags, seen: Features, recipe: ExpertsRecipe) -> Fits:
    fits = Fits()
    with patch.object(experts, "fit", fits):
        train_committee(bags, seen, TRAINING, recipe, 0)
    return fits


@pytest.mark.parametrize("images", [2, 16])
def test_an_epoch_has_every_training_patient_once_with_a_sample_of_pictures(
    telling: tuple[Bags, Features], images: int
) -> None:
    bags, seen = telling
    (batches,) = trained_with(bags, seen, replace(QUICK, images_per_patient=images, batch_patients=9)).batches
    place = {bags.clinical[patient].tobytes(): patient for patient in TRAINING.tolist()}
    epochs = []
    for epoch in range(2):
        parts = list(batches(np.random.default_rng(epoch)))
        assert [len(part.labels) for part in parts] == [9, 9, 9, 9, 4]
        order, shown = [], []
        for part in parts:
            for means, clinical, label in zip(part.means, part.clinical, part.labels, strict=True):
                patient = place[clinical.numpy().tobytes()]
                order.append(patient)
                assert label == bags.labels[patient]
                own = seen.pictures[bags.offsets[patient] : bags.offsets[patient + 1]]
                some = [own[list(which)].mean(axis=0) for which in combinations(range(4), min(images, 4))]
                shown.append([np.allclose(means, one, atol=1e-6) for one in some].index(True))
        assert sorted(order) == TRAINING.tolist()
        epochs.append((order, shown))
    assert epochs[0][0] != epochs[1][0]
    assert len(set(epochs[0][1])) == (6 if images == 2 else 1)


def test_the_loss_is_the_mixtures_and_each_experts_and_the_gates(telling: tuple[Bags, Features]) -> None:
    """By hand, with outputs that do not depend on the patients."""
    bags, seen = telling
    labels = np.where(np.arange(PATIENTS) < 10, 1, 0)
    recipe = replace(QUICK, expert_loss=0.5, gate_pull=2.0, dropout=0.35)
    (loss,) = trained_with(replace(bags, labels=labels), seen, recipe).loss  # 10 malignant, 30 reactive
    batch = Batch(torch.zeros(4, WIDTH), torch.zeros(4, 3), torch.tensor([1, 0, 0, 1]), np.arange(4))
    asked = []

    def network(means: Tensor, clinical: Tensor, dropout: float) -> GatedOutput:
        asked.append((means, clinical, dropout))
        return GatedOutput(*(torch.full((4,), value) for value in (0.7, 0.6, 0.8, 0.9)))

    def entropy(p: float) -> float:
        return float(-(3 * 2 * np.log(p) + 2 * np.log(1 - p)) / (3 * 2 + 2))  # malignant ones weigh threefold

    expected = entropy(0.7) + 0.5 * (entropy(0.6) + entropy(0.8)) + 2.0 * 0.4**2
    assert loss(network, batch).item() == pytest.approx(expected, rel=1e-5)
    assert asked == [(batch.means, batch.clinical, 0.35)]


def test_clinical_expert_and_gate_have_a_rate_of_their_own(telling: tuple[Bags, Features]) -> None:
    slow, fast = trained_with(*telling, replace(QUICK, clinical_rate=20.0)).rates
    rate, decay = QUICK.fit.learning_rate, QUICK.fit.weight_decay
    assert set(slow.values()) == {(rate, decay)}
    assert set(fast.values()) == {(rate * 20, 0.0)}
    assert {name.split(".")[0] for name in slow} == {"image_map", "image_expert", "gate_map"}
    assert {name.split(".")[0] for name in fast} == {"clinical_expert", "gate"}


def test_features_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    network, means, clinical = Experts(WIDTH), torch.randn(5, WIDTH), torch.rand(5, 3) + 1
    plain = network.eval()(means, clinical)
    assert torch.equal(network(means, clinical, 0.5).image, plain.image)
    network.train()
    views = [network(means, clinical, 0.5).image for _ in range(2)]
    assert not torch.equal(views[0], views[1])
    # Not asked for. In training the probabilities are in single precision.
    torch.testing.assert_close(network(means, clinical).image.double(), plain.image, rtol=0, atol=1e-7)
    torch.testing.assert_close(network(means, clinical, 0.5).clinical.double(), plain.clinical, rtol=0, atol=1e-7)
    assert plain.image.dtype == torch.float64


# The member

FEW = 20
FOLDS = np.arange(FEW) // 2 % 5
OF_MEMBER = replace(SMALL, experts=replace(QUICK, fit=replace(QUICK.fit, epochs=6), late_steps=30, seeds=2))
Few = tuple[Bags, Features]


@pytest.fixture(scope="module")
def few() -> Few:
    bags, seen = drawn(pictures=1.0, age=1.0, seed=2)
    some = bags.of(np.arange(FEW))
    return some, replace(seen, pictures=seen.pictures[: len(some.crops)])


@contextmanager
def seeing(seen: Features) -> Iterator[None]:
    with patch.object(experts, "embed_pictures", lambda *_: seen):
        yield


def trained(few: Few, run: Path, recipe: Recipe = OF_MEMBER, seed: int = 4) -> pd.DataFrame:
    with seeing(few[1]):
        train(MemberJob(few[0], FOLDS, run, recipe, seed, CPU))
    return pd.read_csv(run / "moe/out_of_fold.csv")


def predicted(few: Few, training: Indices, asked: Indices) -> dict[str, Floats]:
    with seeing(few[1]):
        found = candidate(NestedJob(few[0], Path("unused"), OF_MEMBER, 4, CPU)).predict(training, asked, Path("unused"))
    assert isinstance(found, dict)
    return found


def test_a_patient_is_judged_by_own_swapped_and_blank_pictures_as_by_slow_loops(few: Few) -> None:
    bags, seen = few
    training, asked = np.arange(2, 15), np.array([15, 0, 17, 19, 16])
    columns = predicted(few, training, asked)
    committee = train_committee(bags, seen, training, OF_MEMBER.experts, 4)
    assert tuple(columns) == COLUMNS == (OWN, SWAPPED, BLANK)
    for column, shown in whose_pictures(asked, bags.patient_ids).items():
        expected = slow_judge(committee, seen, bags, asked, shown)["probability"]
        np.testing.assert_allclose(columns[column], expected, atol=1e-5)
    assert np.ptp([columns[column] for column in COLUMNS], axis=0).min() > 1e-3


def test_out_of_fold_probabilities_are_those_of_slow_loops(few: Few, tmp_path: Path) -> None:
    bags, seen = few
    table = trained(few, tmp_path)
    assert table.columns.tolist() == ["patient_id", "fold", "label", *OUTPUTS, "pictures_only"]
    assert table["patient_id"].tolist() == bags.patient_ids
    assert table["fold"].tolist() == FOLDS.tolist()
    assert table["label"].tolist() == bags.labels.tolist()
    for fold in range(5):
        training, asked = np.flatnonzero(fold != FOLDS), np.flatnonzero(fold == FOLDS)
        committee = train_committee(bags, seen, training, OF_MEMBER.experts, 4)
        for name, expected in slow_judge(committee, seen, bags, asked, asked).items():
            np.testing.assert_allclose(table[name][asked], expected, atol=1e-5)
        np.testing.assert_allclose(table["probability"][asked], predicted(few, training, asked)[OWN], atol=1e-12)
    assert table["pictures_only"].tolist() == table["image"].tolist()
    assert roc_auc_score(table["label"], table["pictures_only"]) > 0.8


def test_what_export_reads_was_trained_on_everybody(few: Few, tmp_path: Path) -> None:
    trained(few, tmp_path)
    loaded = load_experts(tmp_path)
    assert same(loaded, train_committee(*few, np.arange(FEW), OF_MEMBER.experts, 4))
    assert not loaded.training
    names = [path.relative_to(tmp_path).as_posix() for path in files(tmp_path)]
    assert names == ["moe/full.safetensors", "moe/numbers.json"]


def test_nothing_of_other_held_out_patients_moves_a_prediction(few: Few) -> None:
    bags, seen = few
    training, asked = np.arange(14), np.arange(14, FEW)
    before = predicted(few, training, asked)[OWN]
    pictures, clinical, labels = seen.pictures.copy(), bags.clinical.copy(), bags.labels.copy()
    pictures[bags.patient_of_image() > 14] *= 2
    clinical[15:] *= 3
    labels[14:] = 1 - labels[14:]
    changed = replace(bags, clinical=clinical, labels=labels), replace(seen, pictures=pictures)
    after = predicted(changed, training, asked)[OWN]
    assert after[0] == pytest.approx(before[0], abs=1e-7)
    assert not np.isclose(after[1:], before[1:]).any()


def test_a_patients_own_label_and_those_of_the_fold_change_nothing(few: Few, tmp_path: Path) -> None:
    table = trained(few, tmp_path / "a")
    labels = np.where(FOLDS == 1, 1 - few[0].labels, few[0].labels)
    turned = trained((replace(few[0], labels=labels), few[1]), tmp_path / "b")
    for column in (*OUTPUTS, "pictures_only"):
        same = table[column] == turned[column]
        assert same[FOLDS == 1].all()
        assert not same[FOLDS != 1].any()


def test_what_is_finished_is_kept_until_a_number_of_it_changes(few: Few, tmp_path: Path) -> None:
    known = train_committee(*few, np.arange(FEW), OF_MEMBER.experts, 4)
    path = tmp_path / "moe/full.safetensors"

    def again(recipe: Recipe = OF_MEMBER, seed: int = 4) -> bool:
        """Whether a call with this recipe and seed fits everything again; a second one does not."""
        fitted = []
        for _ in range(2):
            if path.exists():
                path.write_bytes(b"old")
            trained(few, tmp_path, recipe, seed)
            fitted.append(path.read_bytes() != b"old")
        assert not fitted[1]
        return fitted[0]

    with patch.object(experts, "train_committee", lambda *_: known):
        trained(few, tmp_path)
        assert not again()
        assert not again(replace(OF_MEMBER, bayes=BayesRecipe(0.7), moe=replace(SMALL.moe, late_steps=1), name="other"))
        assert again(replace(OF_MEMBER, experts=replace(OF_MEMBER.experts, dropout=0.1)))
        assert again(seed=5)
        with patch.object(experts, "MAGNIFICATION", Magnification(112, 112)):
            assert again(seed=5)
        assert again()
        made = sorted(one.name for one in (tmp_path / "moe").iterdir())
        assert made == ["full.safetensors", "numbers.json", "out_of_fold.csv"]
        for name in made:
            (tmp_path / "moe" / name).unlink()
            assert again(), name


def test_every_number_is_among_those_that_predictions_are_known_by() -> None:
    before = numbers(SMALL, 0)
    others: list[tuple[Recipe, int]] = [(SMALL, 1)]
    for one in fields(ExpertsRecipe):
        now = getattr(SMALL.experts, one.name)
        other: Any = replace(now, epochs=77) if isinstance(now, FitRecipe) else now + 1
        changed: dict[str, Any] = {one.name: other}
        others.append((replace(SMALL, experts=replace(SMALL.experts, **changed)), 0))
    assert len(others) == 1 + 9
    for recipe, seed in others:
        assert numbers(recipe, seed) != before
    assert registry.digests(*others[-1])["moe_sha256"] == digest(numbers(*others[-1])) != digest(before)
    with patch.object(experts, "MAGNIFICATION", Magnification(112, 112)):
        assert numbers(SMALL, 0) != before
    with patch.object(experts, "weights_digest", lambda: "others"):
        assert numbers(SMALL, 0) != before
    assert numbers(replace(SMALL, moe=replace(SMALL.moe, late_steps=1)), 0) == before  # of the one with its own encoder


def test_a_candidate_is_known_by_its_numbers_and_judged_in_every_repeat(few: Few) -> None:
    with seeing(few[1]):
        one, other = (candidate(NestedJob(few[0], Path("unused"), OF_MEMBER, seed, CPU)) for seed in (0, 1))
    assert str(one) == "moe"
    assert one.facts == {**numbers(OF_MEMBER, 0), "columns": COLUMNS}
    assert one.facts != other.facts
    assert one.repeated
    assert not one.clinical_only
