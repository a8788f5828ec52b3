"""Cell classes on frozen features: planted kinds are found, by nobody's pictures but the training patients'."""

import copy
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_mutual_info_score, homogeneity_score, roc_auc_score
from torch import Tensor, nn

from infer.errors import UsageError
from infer.members.naive_bayes import NaiveBayes
from tests.train.planted import KINDS, WIDTH, Planted, planted
from tests.train.test_naive_bayes import sklearn_probability
from train.core.arrays import Classes, Floats, Indices
from train.core.fitting import FitRecipe, Job, fit
from train.data.whose_pictures import BLANK, COLUMNS, NOBODY, OWN, SWAPPED, whose_pictures
from train.members import registry
from train.members.cells import clustering, member
from train.members.cells.clustering import CellClasses, Pictures, train_cells
from train.members.cells.member import candidate, files, load, numbers, train
from train.members.cells.network import Heads
from train.members.embedding import FEATURES, Magnification
from train.members.naive_bayes import fit_naive_bayes, patient_features
from train.members.recipes import CELLS, SMALL, BayesRecipe, CellRecipe, Recipe
from train.members.scan.fusion import fuse
from train.members.scan.measures import Collapse
from train.members.training import MemberJob, NestedJob, digest

CPU = torch.device("cpu")
RECIPE = replace(CELLS, components=KINDS - 1, batch_images=64, neighbours=8, clusters=KINDS, fused=KINDS)
QUICK = replace(RECIPE, heads=2, clustering=replace(CELLS.clustering, epochs=3))
SEED = 3  # of trainings that are looked into
CLUSTERING, SELF_LABELLING = "cells clustering", "cells self-labelling"


@pytest.fixture(scope="module")
def drawn() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def found(drawn: Planted) -> CellClasses:
    return train_cells(drawn.seen.pictures, drawn.owner, RECIPE, 0)


@dataclass
class Fits:
    """Stands in the place of the training loop; keeps what it was given, and what came out."""

    before: dict[str, nn.Module] = field(default_factory=dict)  # network before its training, by the job's name
    batches: dict[str, Callable[[np.random.Generator], Iterator[Any]]] = field(default_factory=dict)
    loss: dict[str, Callable[[Any, Any], Tensor]] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    instead: dict[str, nn.Module] = field(default_factory=dict)  # comes out without a training

    def __call__(self, network: nn.Module, batches: Any, loss: Any, recipe: FitRecipe, job: Job) -> nn.Module:
        assert job.checkpoint is None
        assert job.seed == SEED
        self.before[job.name], self.batches[job.name], self.loss[job.name] = copy.deepcopy(network), batches, loss
        self.after[job.name] = self.instead.get(job.name) or fit(network, batches, loss, recipe, job)
        trained: nn.Module = self.after[job.name]
        return trained


def trained_with(drawn: Planted, fits: Fits, recipe: CellRecipe = RECIPE) -> CellClasses:
    with patch.object(clustering, "fit", fits):
        return train_cells(drawn.seen.pictures, drawn.owner, recipe, SEED)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def linear(weight: Tensor) -> nn.Linear:
    """A head without bias."""
    head = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.zero_()
    return head


def constant(chosen: int = 0) -> nn.Linear:
    """A head that puts everything into one class."""
    head = nn.Linear(RECIPE.components, RECIPE.clusters)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(20.0 * torch.eye(RECIPE.clusters)[chosen])
    return head


@pytest.mark.parametrize("width", [WIDTH, FEATURES])
def test_planted_kinds_are_found_in_new_patients_too(width: int) -> None:
    drawn = planted(width=width)
    found = train_cells(drawn.seen.pictures, drawn.owner, RECIPE, 0)
    for one in (drawn, planted(seed=1, width=width)):
        assert adjusted_mutual_info_score(one.kinds, found.of(one.seen.pictures)) > 0.95
    assert found.of(drawn.seen.blank[None]).tolist() == [found.of(drawn.seen.pictures)[drawn.kinds == 0][0]]


def test_twenty_classes_become_fifteen_and_none_mixes_kinds(drawn: Planted) -> None:
    many = train_cells(drawn.seen.pictures, drawn.owner, replace(RECIPE, clusters=20, fused=15), 0)
    with torch.inference_mode():
        probabilities = many.network(torch.from_numpy(drawn.seen.pictures))[0].numpy()
    assert many.fusion.shape == (20,)
    assert set(many.fusion.tolist()) == set(range(15))
    assert many.fusion.tolist() == fuse(probabilities, 15).tolist()
    classes = many.of(drawn.seen.pictures)
    assert classes.tolist() == [int(many.fusion[row.argmax()]) for row in probabilities]
    assert homogeneity_score(drawn.kinds, classes) > 0.95


def test_the_same_seed_gives_the_same_classes_whatever_ran_before(drawn: Planted, found: CellClasses) -> None:
    torch.rand(7)
    again, other = (train_cells(drawn.seen.pictures, drawn.owner, RECIPE, seed) for seed in (0, 1))
    assert same(again.network, found.network)
    assert again.fusion.tolist() == found.fusion.tolist()
    assert not same(other.network.head, found.network.head)


def test_who_the_patients_are_called_does_not_matter(drawn: Planted, found: CellClasses) -> None:
    """Owners are told apart, not counted: a fold's training patients have gaps in their numbers."""
    assert same(train_cells(drawn.seen.pictures, 3 * drawn.owner + 5, RECIPE, 0).network, found.network)


def test_the_network_is_its_steps_one_by_one(drawn: Planted, found: CellClasses) -> None:
    parts = {name: value.double().numpy() for name, value in found.network.state_dict().items()}
    pictures = drawn.seen.pictures[:50].astype(np.float64)
    embedding = pictures @ parts["projection.weight"].T + parts["projection.bias"]
    logits = embedding @ parts["head.weight"].T + parts["head.bias"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert not found.network.training
    with torch.inference_mode():
        probabilities, given = found.network(torch.from_numpy(drawn.seen.pictures[:50]))
    np.testing.assert_allclose(given, embedding, atol=1e-4)
    np.testing.assert_allclose(found.network.embed(drawn.seen.pictures[:50]), embedding, atol=1e-4)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_the_projection_is_whitened_principal_components(drawn: Planted, found: CellClasses) -> None:
    pca = PCA(RECIPE.components, whiten=True, svd_solver="full").fit(drawn.seen.pictures.astype(np.float64))
    for pictures in (drawn.seen.pictures, planted(seed=1).seen.pictures):
        expected, embedding = pca.transform(pictures.astype(np.float64)), found.network.embed(pictures).numpy()
        signs = np.sign((expected * embedding).sum(axis=0))
        np.testing.assert_allclose(embedding * signs, expected, atol=1e-3)


def test_a_direction_in_which_no_picture_differs_is_not_blown_up(drawn: Planted) -> None:
    """Features of rank three, in more components than that: what is left is rounding."""
    rng = np.random.default_rng(0)
    flat = (rng.normal(size=(len(drawn.owner), 3)) @ rng.normal(size=(3, WIDTH)) + 1).astype(np.float32)
    embedding = train_cells(flat, drawn.owner, replace(QUICK, components=6), 0).network.embed(flat)
    np.testing.assert_allclose(embedding[:, :3].std(dim=0), 1, atol=0.01)
    assert embedding[:, 3:].abs().max() < 0.05


def test_few_pictures_have_no_more_components_than_there_are_of_them(drawn: Planted) -> None:
    few = np.arange(0, len(drawn.owner), 40)  # every other patient's first picture
    recipe = replace(QUICK, components=50, neighbours=2, largest_class=1.0)
    assert train_cells(drawn.seen.pictures[few], drawn.owner[few], recipe, 0).network.dimensions.components == 12


def pictures_of(rows: Tensor, embedding: Tensor) -> list[int]:
    """Which pictures these rows of the embedding are."""
    place = {row.numpy().tobytes(): index for index, row in enumerate(embedding)}
    return [place[row.numpy().tobytes()] for row in rows]


def test_a_neighbour_is_one_of_the_nearest_of_other_patients(drawn: Planted, found: CellClasses) -> None:
    """Compared with brute force, pair by pair, over one epoch of the clustering."""
    fits = Fits()
    trained_with(drawn, fits)
    embedding = found.network.embed(drawn.seen.pictures)
    batches = list(fits.batches[CLUSTERING](np.random.default_rng(0)))
    anchors, others = (torch.cat([batch[side] for batch in batches]) for side in (0, 1))
    unit = embedding.double().numpy() / np.linalg.norm(embedding.double().numpy(), axis=1, keepdims=True)
    likeness = unit @ unit.T
    owns = 0
    for anchor, other in zip(pictures_of(anchors, embedding), pictures_of(others, embedding), strict=True):
        strangers = np.flatnonzero(drawn.owner != drawn.owner[anchor])
        nearest = strangers[np.argsort(-likeness[anchor, strangers])[: RECIPE.neighbours]]
        assert other in nearest
        everybody = np.argsort(-likeness[anchor])[1 : 1 + RECIPE.neighbours]
        owns += int((drawn.owner[everybody] == drawn.owner[anchor]).any())
    assert owns > 50  # without the rule, many would have been the patient's own
    assert len(anchors) == 64 * (480 // 64)
    assert len(set(pictures_of(anchors, embedding))) == len(anchors)


@pytest.mark.parametrize("stage", [CLUSTERING, SELF_LABELLING])
def test_components_are_noisy_in_training_as_the_recipe_says(drawn: Planted, stage: str) -> None:
    fits, shown = Fits(), []
    trained_with(drawn, fits)
    (batch, *_) = fits.batches[stage](np.random.default_rng(0))
    plain = torch.cat(batch) if stage == CLUSTERING else batch[0]

    def network(given: Tensor) -> Tensor:
        shown.append(given - plain)
        return torch.zeros(2, len(given), 6) if stage == CLUSTERING else torch.zeros(len(given), 6)

    for _ in range(2):
        fits.loss[stage](network, batch)
    for noise in shown:
        assert noise.std().item() == pytest.approx(RECIPE.noise, rel=0.15)
        assert abs(noise.mean().item()) < 0.05
    assert not torch.equal(shown[0], shown[1])


def test_the_head_with_the_lowest_loss_is_kept(drawn: Planted) -> None:
    """SCAN's equation 2, computed picture by picture over the nearest neighbours."""
    fits = Fits()
    classes = trained_with(drawn, fits, replace(RECIPE, clustering=replace(RECIPE.clustering, epochs=2)))
    embedding = classes.network.embed(drawn.seen.pictures)
    unit = embedding / embedding.norm(dim=1, keepdim=True)
    likeness = (unit @ unit.T).masked_fill(torch.from_numpy(drawn.owner[:, None] == drawn.owner), -2)
    first = likeness.argmax(dim=1).numpy()
    losses = []
    for head in fits.after[CLUSTERING].each:
        with torch.inference_mode():
            p = head(embedding).softmax(1).double().numpy()
        agreement = np.mean([np.log(p[index] @ p[other]) for index, other in enumerate(first)])
        share = p.mean(axis=0)
        losses.append(-agreement + RECIPE.entropy_weight * (share * np.log(share)).sum())
    kept = [same(head, fits.before[SELF_LABELLING]) for head in fits.after[CLUSTERING].each]
    assert kept.index(True) == int(np.argmin(losses))
    assert len(losses) == RECIPE.heads
    assert np.ptp(losses) > 0.01


def test_a_head_that_is_sure_of_itself_but_not_with_its_neighbours_is_not_kept(drawn: Planted) -> None:
    """One head tells the kinds softly, one tells noise sharply: a picture agrees with itself, its neighbours do not."""
    recipe = replace(RECIPE, components=KINDS + 4)
    fits = Fits()
    trained_with(drawn, fits, recipe)
    sharp = torch.zeros(KINDS, KINDS + 4)
    sharp[:5, 5:] = 50 * torch.eye(5)
    soft = 0.5 * fits.before[SELF_LABELLING].get_parameter("weight").detach()
    heads = Heads([linear(sharp), linear(soft)])
    again = Fits(instead={CLUSTERING: heads})
    trained_with(drawn, again, recipe)
    assert same(again.before[SELF_LABELLING], heads.each[1])


def test_a_head_in_which_one_class_has_most_pictures_is_passed_over(drawn: Planted, found: CellClasses) -> None:
    """Without the entropy it has the lowest loss of all: every neighbour shares the class."""
    good = found.network.head
    fits = Fits(instead={CLUSTERING: Heads([constant(), good]), SELF_LABELLING: good})
    kept = trained_with(drawn, fits, replace(RECIPE, entropy_weight=0.0))
    assert same(kept.network.head, good)
    assert same(fits.before[SELF_LABELLING], good)
    assert not kept.collapsed


@pytest.mark.parametrize("heads", [1, 3])
def test_where_clustering_collapsed_in_every_head_k_means_takes_its_place(drawn: Planted, heads: int) -> None:
    fits = Fits(instead={CLUSTERING: Heads([constant(number) for number in range(heads)])})
    kept = trained_with(drawn, fits)
    assert SELF_LABELLING not in fits.before
    assert kept.collapsed == (
        "cells: SCAN's clustering collapsed, in every head one class contains at least 100% of the pictures"
    )
    for one in (drawn, planted(seed=1)):
        assert adjusted_mutual_info_score(one.kinds, kept.of(one.seen.pictures)) > 0.95


def test_a_clustering_that_is_lost_after_self_labelling_and_fusion_is_replaced_too(drawn: Planted) -> None:
    fits = Fits(instead={CLUSTERING: Heads([constant()]), SELF_LABELLING: constant()})
    kept = trained_with(drawn, fits, replace(RECIPE, largest_class=1.0))
    assert kept.collapsed == "cells: all pictures are in the same class"
    assert adjusted_mutual_info_score(drawn.kinds, kept.of(drawn.seen.pictures)) > 0.95


def test_classes_that_are_all_fused_are_a_collapse(drawn: Planted) -> None:
    with pytest.raises(Collapse, match="cells: all pictures are in the same class"):
        train_cells(drawn.seen.pictures, drawn.owner, replace(QUICK, fused=1), 0)


def test_self_labelling_learns_from_each_classs_surest_pictures(drawn: Planted) -> None:
    fits = Fits()
    classes = trained_with(drawn, fits, replace(RECIPE, batch_images=16, confidence=0.97))
    embedding = classes.network.embed(drawn.seen.pictures)
    with torch.inference_mode():
        probabilities = fits.before[SELF_LABELLING](embedding).softmax(1)
    sureness, labels = probabilities.max(dim=1)
    batches = list(fits.batches[SELF_LABELLING](np.random.default_rng(0)))
    taught = pictures_of(torch.cat([rows for rows, _ in batches]), embedding)
    assert torch.cat([of for _, of in batches]).tolist() == labels[taught].tolist()
    expected = set()
    for one in range(KINDS):
        own = np.flatnonzero(labels == one)
        middle = float(np.quantile(sureness[own].numpy(), 0.5))
        expected |= {int(index) for index in own if sureness[index] >= min(middle, 0.97)}
    assert set(taught) <= expected
    assert len(expected) - len(taught) < 16  # a short last batch is left out
    assert 0.5 * len(labels) <= len(expected) < 0.98 * len(labels)
    assert same(classes.network.head, fits.after[SELF_LABELLING])
    assert not same(classes.network.head, fits.before[SELF_LABELLING])


def test_self_labelling_that_loses_a_class_leaves_the_clustering_standing(
    drawn: Planted, found: CellClasses, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="lympho")
    fits = Fits(instead={SELF_LABELLING: constant(2)})
    kept = trained_with(drawn, fits)
    assert same(kept.network.head, fits.before[SELF_LABELLING])
    assert adjusted_mutual_info_score(drawn.kinds, kept.of(drawn.seen.pictures)) > 0.95
    assert f"self-labelling lost {KINDS - 1} classes, the clustering is used" in caplog.text


def test_with_few_pictures_of_other_patients_a_picture_has_fewer_neighbours(drawn: Planted) -> None:
    """Of the 60 pictures of two patients 20 are of the other one, for those of the patient with 40."""
    owner = np.repeat([3, 9], [40, 20])
    fits = Fits()
    with patch.object(clustering, "fit", fits):
        found = train_cells(drawn.seen.pictures[:60], owner, replace(QUICK, neighbours=21, batch_images=60), SEED)
    assert not found.collapsed
    embedding = found.network.embed(drawn.seen.pictures[:60])
    partners = set()
    for seed in range(40):
        ((anchors, others),) = fits.batches[CLUSTERING](np.random.default_rng(seed))
        pairs = zip(pictures_of(anchors, embedding), pictures_of(others, embedding), strict=True)
        partners |= {other for anchor, other in pairs if anchor == 0}
    assert partners <= set(range(40, 60))
    assert len(partners) > 12


# The member

PATIENTS = 20
FOLDS = np.arange(PATIENTS) // 2 % 5
OF_MEMBER = replace(
    SMALL, cells=replace(QUICK, clusters=12, fused=9, neighbours=5, batch_images=32), bayes=BayesRecipe(smoothing=3.0)
)


@pytest.fixture(scope="module")
def few() -> Planted:
    made = planted(PATIENTS, 8, seed=3)
    made.bags.clinical[:, 1] = np.random.default_rng(1).lognormal(2, 0.5, PATIENTS)
    return made


@contextmanager
def seeing(of: Planted) -> Iterator[None]:
    with patch.object(member, "embed_pictures", lambda *_: of.seen):
        yield


def trained(of: Planted, run: Path, recipe: Recipe = OF_MEMBER, seed: int = 4) -> pd.DataFrame:
    with seeing(of):
        train(MemberJob(of.bags, FOLDS, run, recipe, seed, CPU))
    return pd.read_csv(run / "cells/out_of_fold.csv")


def predicted(of: Planted, training: Indices, asked: Indices, recipe: Recipe = OF_MEMBER) -> dict[str, Floats]:
    with seeing(of):
        found = candidate(NestedJob(of.bags, Path("unused"), recipe, 4, CPU)).predict(training, asked, Path("unused"))
    assert isinstance(found, dict)
    return found


def slow(of: Planted, training: Indices, asked: Indices, shown: Indices, *, clinical: bool = True) -> Floats:
    """The same, patient by patient and picture by picture, with scikit-learn."""

    def pictures(patient: int) -> Pictures:
        if patient == NOBODY:
            return of.seen.blank[None]
        return np.stack([row for row, owner in zip(of.seen.pictures, of.owner, strict=True) if owner == patient])

    known = np.concatenate([pictures(patient) for patient in training])
    owner = np.concatenate([[patient] * len(pictures(patient)) for patient in training])
    cells = train_cells(known, owner, OF_MEMBER.cells, 4)
    with torch.inference_mode():
        fused = {
            whose: [int(cells.fusion[int(row.argmax())]) for row in cells.network(torch.from_numpy(pictures(whose)))[0]]
            for whose in {*training.tolist(), *shown.tolist()}
        }

    def features(patient: int, whose: int) -> list[float]:
        classes = fused[whose]
        shares = [classes.count(one) / len(classes) for one in range(15)]
        entropy = -sum(share * np.log(share + 1e-3) for share in shares)
        values = of.bags.clinical[patient].tolist() if clinical else []
        return [*values, *shares, entropy, len(set(classes))]

    base = np.array([features(patient, patient) for patient in training])
    rows = np.array([features(patient, whose) for patient, whose in zip(asked, shown, strict=True)])
    smoothing = OF_MEMBER.bayes.smoothing
    return sklearn_probability(base, of.bags.labels[training], rows, smoothing, floored=clinical)


def test_a_patient_is_judged_by_own_swapped_and_blank_pictures_as_by_slow_loops(few: Planted) -> None:
    training, asked = np.arange(2, 15), np.array([15, 0, 17, 19, 16])
    columns = predicted(few, training, asked)
    assert tuple(columns) == COLUMNS == (OWN, SWAPPED, BLANK)
    for column, shown in whose_pictures(asked, few.bags.patient_ids).items():
        np.testing.assert_allclose(columns[column], slow(few, training, asked, shown), atol=1e-7)
    assert np.ptp([columns[column] for column in COLUMNS], axis=0).max() > 0.1


def test_out_of_fold_probabilities_are_those_of_slow_loops(few: Planted, tmp_path: Path) -> None:
    table = trained(few, tmp_path)
    assert table.columns.tolist() == ["patient_id", "fold", "label", "probability", "pictures_only"]
    assert table["patient_id"].tolist() == few.bags.patient_ids
    assert table["fold"].tolist() == FOLDS.tolist()
    assert table["label"].tolist() == few.bags.labels.tolist()
    for fold in range(5):
        training, asked = np.flatnonzero(fold != FOLDS), np.flatnonzero(fold == FOLDS)
        expected = slow(few, training, asked, asked)
        np.testing.assert_allclose(table["probability"][asked], expected, atol=1e-7)
        np.testing.assert_allclose(table["probability"][asked], predicted(few, training, asked)[OWN], atol=1e-12)
        by_pictures = slow(few, training, asked, asked, clinical=False)
        np.testing.assert_allclose(table["pictures_only"][asked], by_pictures, atol=1e-7)
    assert roc_auc_score(table["label"], table["pictures_only"]) > 0.8


def test_what_export_reads_was_learnt_from_everybody(few: Planted, tmp_path: Path) -> None:
    trained(few, tmp_path)
    cells, bayes = load(tmp_path)
    expected = train_cells(few.seen.pictures, few.owner, OF_MEMBER.cells, 4)
    assert same(cells.network, expected.network)
    assert not cells.network.training
    assert cells.fusion.tolist() == expected.fusion.tolist()
    classes = expected.of(few.seen.pictures)
    table = pd.read_csv(tmp_path / "cells/classes.csv", dtype={"image": str})
    assert table["cell_class"].tolist() == classes.tolist()
    assert table["patient_id"].tolist() == [few.bags.patient_ids[index] for index in few.owner]
    assert table["image"].tolist() == few.bags.image_names
    assert bayes == fit_naive_bayes(patient_features(few.bags, classes), few.bags.labels, OF_MEMBER.bayes)
    assert [path.relative_to(tmp_path).as_posix() for path in files(tmp_path)] == [
        "cells/full.safetensors", "cells/fusion.json", "cells/naive_bayes.json", "cells/numbers.json",
    ]  # fmt: skip


def test_how_often_neighbours_are_the_patients_own_is_written_down(few: Planted, tmp_path: Path) -> None:
    trained(few, tmp_path)
    embedding = load(tmp_path)[0].network.embed(few.seen.pictures).double().numpy()
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    own = 0
    for index, row in enumerate(unit):
        likeness = unit @ row
        likeness[index] = -2
        own += int((few.owner[np.argsort(-likeness)[:5]] == few.owner[index]).sum())
    facts = json.loads((tmp_path / "cells/neighbours.json").read_text())
    assert facts["own_patient_share"] == pytest.approx(own / (5 * len(unit)))
    assert facts["own_patient_share_by_chance"] == pytest.approx(7 / 159)


def spied(calls: list[tuple[set[int], Pictures]]) -> Callable[..., CellClasses]:
    def noted(pictures: Pictures, owner: Classes, recipe: CellRecipe, seed: int) -> CellClasses:
        calls.append((set(owner.tolist()), pictures))
        return train_cells(pictures, owner, recipe, seed)

    return noted


def test_classes_are_learnt_from_the_training_patients_pictures_alone(few: Planted, tmp_path: Path) -> None:
    calls: list[tuple[set[int], Pictures]] = []
    with patch.object(member, "train_cells", spied(calls)):
        trained(few, tmp_path)
        predicted(few, np.arange(3, 16), np.array([1, 2, 17]))
    expected = [set(np.flatnonzero(fold != FOLDS)) for fold in range(5)] + [set(range(PATIENTS)), set(range(3, 16))]
    assert [owners for owners, _ in calls] == expected
    for owners, pictures in calls:
        np.testing.assert_array_equal(pictures, few.seen.pictures[[one in owners for one in few.owner]])


def test_nothing_of_other_held_out_patients_moves_a_prediction(few: Planted) -> None:
    training, asked = np.arange(14), np.arange(14, PATIENTS)
    before = predicted(few, training, asked)[OWN]
    pictures = few.seen.pictures.copy()
    pictures[few.owner > 14] = pictures[few.owner > 14][::-1]
    other = few.changed(pictures)
    other = replace(other, bags=replace(few.bags, clinical=few.bags.clinical.copy(), labels=few.bags.labels.copy()))
    other.bags.clinical[15:] *= 3
    other.bags.labels[14:] = 1 - other.bags.labels[14:]
    after = predicted(other, training, asked)[OWN]
    assert after[0] == before[0]
    assert not np.isclose(after[1:], before[1:]).any()
    pictures = few.seen.pictures.copy()
    pictures[few.owner == 3] = pictures[few.owner == 4]
    assert predicted(few.changed(pictures), training, asked)[OWN][0] != before[0]


def test_a_patients_own_label_and_those_of_the_fold_change_nothing(few: Planted, tmp_path: Path) -> None:
    table = trained(few, tmp_path / "a")
    labels = np.where(FOLDS == 1, 1 - few.bags.labels, few.bags.labels)
    turned = trained(replace(few, bags=replace(few.bags, labels=labels)), tmp_path / "b")
    for column in ("probability", "pictures_only"):
        same = table[column] == turned[column]
        assert same[FOLDS == 1].all()
        assert not same[FOLDS != 1].any()


def test_without_the_count_there_is_no_floor_of_it(few: Planted, tmp_path: Path) -> None:
    """In its place in pictures_only's features stands the share of a class, which may well speak for either side."""
    floors = []

    def fitted(base: Floats, labels: Indices, recipe: BayesRecipe, *, has_count: bool = True) -> NaiveBayes:
        floors.append((base.shape[1], has_count))
        return fit_naive_bayes(base, labels, recipe, has_count=has_count)

    with patch.object(member, "fit_naive_bayes", fitted):
        trained(few, tmp_path)
    assert floors == [(20, True), (17, False)] * 5 + [(20, True)]


def test_pictures_only_does_not_see_the_clinical_values(few: Planted, tmp_path: Path) -> None:
    other = replace(few, bags=replace(few.bags, clinical=few.bags.clinical[::-1].copy()))
    first, second = trained(few, tmp_path / "a"), trained(other, tmp_path / "b")
    assert first["pictures_only"].tolist() == second["pictures_only"].tolist()
    assert (first["probability"] != second["probability"]).all()


def test_what_is_finished_is_kept_until_a_number_of_it_changes(few: Planted, tmp_path: Path) -> None:
    known = train_cells(few.seen.pictures, few.owner, OF_MEMBER.cells, 4)
    path = tmp_path / "cells/full.safetensors"

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

    with patch.object(member, "train_cells", lambda *_: known):
        trained(few, tmp_path)
        assert not again()
        assert not again(replace(OF_MEMBER, experts=replace(SMALL.experts, seeds=9), name="other"))
        assert again(replace(OF_MEMBER, bayes=BayesRecipe(0.7)))
        assert again(replace(OF_MEMBER, cells=replace(OF_MEMBER.cells, noise=0.1)))
        assert again(seed=5)
        with patch.object(member, "MAGNIFICATION", Magnification(112, 112)):
            assert again(seed=5)
        assert again()
        made = sorted(one.name for one in (tmp_path / "cells").iterdir())
        assert made == [
            "classes.csv", "full.safetensors", "fusion.json", "naive_bayes.json", "neighbours.json", "numbers.json",
            "out_of_fold.csv",
        ]  # fmt: skip
        for name in made:
            (tmp_path / "cells" / name).unlink()
            if name != "neighbours.json":
                assert again(), name


def test_every_number_is_among_those_that_predictions_are_known_by() -> None:
    before = numbers(SMALL, 0)
    others: list[tuple[Recipe, int]] = [(SMALL, 1), (replace(SMALL, bayes=BayesRecipe(0.5)), 0)]
    for one in fields(CellRecipe):
        now = getattr(SMALL.cells, one.name)
        other: Any = replace(now, epochs=77) if isinstance(now, FitRecipe) else now + 1
        changed: dict[str, Any] = {one.name: other}
        others.append((replace(SMALL, cells=replace(SMALL.cells, **changed)), 0))
    assert len(others) == 2 + 13
    for recipe, seed in others:
        assert numbers(recipe, seed) != before
    assert registry.digests(*others[-1])["scan_sha256"] == digest(numbers(*others[-1])) != digest(before)
    with patch.object(member, "MAGNIFICATION", Magnification(112, 112)):
        assert numbers(SMALL, 0) != before
    with patch.object(member, "weights_digest", lambda: "others"):
        assert numbers(SMALL, 0) != before
    assert numbers(replace(SMALL, experts=replace(SMALL.experts, seeds=9)), 0) == before


def test_a_candidate_is_known_by_its_numbers_and_judged_in_every_repeat(few: Planted) -> None:
    with seeing(few):
        one, other = (candidate(NestedJob(few.bags, Path("unused"), OF_MEMBER, seed, CPU)) for seed in (0, 1))
    assert str(one) == "scan"
    assert one.facts == {**numbers(OF_MEMBER, 0), "columns": COLUMNS}
    assert one.facts != other.facts
    assert one.repeated
    assert not one.clinical_only


def test_a_run_without_cells(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"full\.safetensors: is missing\. Run `python -m train cells` first"):
        load(tmp_path)
