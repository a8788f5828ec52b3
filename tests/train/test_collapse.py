"""Where a member's training collapses: k-means in SCAN's place, or the ensemble without the member; and it is told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from tests.train.planted import Planted, planted
from tests.train.test_cells import CPU, FOLDS, OF_MEMBER, PATIENTS, QUICK, predicted, seeing, trained
from train.core.arrays import Classes
from train.data.whose_pictures import COLUMNS
from train.members import absent, registry
from train.members.absent import notes_of, read_notes, train_or_leave_out
from train.members.cells import clustering, member
from train.members.cells.centroids import nearest_centroid, with_outputs
from train.members.cells.clustering import train_cells
from train.members.scan.measures import Collapse
from train.members.training import MemberJob


@pytest.fixture(scope="module")
def few() -> Planted:
    return planted(PATIENTS, 8, seed=3)


def collapse(*_: Any) -> Any:
    raise Collapse("cells: forced")


def where(chosen: Callable[[set[int]], bool]) -> Any:
    """SCAN collapses where these patients are trained on."""
    scan = clustering._by_scan

    def by_scan(embedding: Any, owner: Classes, recipe: Any, seed: int) -> Any:
        return collapse() if chosen(set(owner.tolist())) else scan(embedding, owner, recipe, seed)

    return patch.object(clustering, "_by_scan", by_scan)


def job(of: Planted, run: Path) -> MemberJob:
    return MemberJob(of.bags, FOLDS, run, OF_MEMBER, 4, CPU)


def test_the_nearest_centroid_is_a_linear_layer() -> None:
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(5, 7))[rng.integers(0, 5, 200)] * 3 + rng.normal(size=(200, 7))).astype(np.float32)
    head = nearest_centroid(torch.from_numpy(points), 5, 2)
    found = KMeans(5, n_init=3, random_state=2).fit(points.astype(np.float64))
    others = rng.normal(size=(50, 7)).astype(np.float32) * 2
    variance = np.mean((points - found.cluster_centers_[found.labels_]) ** 2)
    for shown in (points, others):
        with torch.inference_mode():
            probabilities = head(torch.from_numpy(shown)).softmax(1).double().numpy()
        for row, probability in zip(shown.astype(np.float64), probabilities, strict=True):
            likelihood = np.array(
                [np.exp(-((row - one) ** 2).sum() / (2 * variance)) for one in found.cluster_centers_]
            )
            np.testing.assert_allclose(probability, likelihood / likelihood.sum(), atol=1e-4)


def test_there_are_no_more_centroids_than_pictures_that_differ() -> None:
    points = torch.eye(4)[[0, 1, 2, 2, 1, 0, 0]]
    head = nearest_centroid(points, 6, 0)
    with torch.inference_mode():
        probabilities = head(torch.randn(100, 4, generator=torch.Generator().manual_seed(0))).softmax(1)
    assert head.out_features == 6
    assert len(set(head(points).argmax(1).tolist())) == 3
    assert probabilities[:, 3:].max() == 0


def test_outputs_that_are_added_change_nothing() -> None:
    head = torch.nn.Linear(3, 4)
    rows = 5 * torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before, after = head(rows).softmax(1), with_outputs(head, 9)(rows).softmax(1)
    np.testing.assert_allclose(after[:, :4], before, atol=1e-6)
    assert after[:, 4:].max() == 0


def test_pictures_that_do_not_differ_and_pictures_of_one_patient(few: Planted) -> None:
    alike = np.repeat(few.seen.pictures[:1], 40, axis=0)
    with pytest.raises(Collapse, match="all pictures look the same"):
        train_cells(alike, few.owner[:40], QUICK, 0)
    alone = train_cells(few.seen.pictures[:40], np.zeros(40, np.int64), QUICK, 0)
    assert alone.collapsed == "cells: all pictures are of one patient, so none has a neighbour"
    assert len(set(alone.of(few.seen.pictures[:40]).tolist())) > 1


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (lambda owners: 4 not in owners, ["in 1 of 6 trainings", "(without fold 2: cells: forced)"]),
        (lambda owners: len(owners) == PATIENTS, ["in 1 of 6 trainings", "(on all patients: cells: forced)"]),
        (lambda owners: True, ["in 6 of 6 trainings", "without fold 4: cells: forced; on all patients: cells: forced"]),
    ],
)
def test_a_collapse_in_a_fold_or_on_all_patients_is_replaced_and_told(
    few: Planted, tmp_path: Path, chosen: Callable[[set[int]], bool], told: list[str]
) -> None:
    with where(chosen):
        table = trained(few, tmp_path)
    assert np.isfinite(table["probability"]).all()
    (note,) = read_notes(tmp_path / "cells")
    assert note.startswith("SCAN's classes of cells could not be learnt ")
    assert all(part in note for part in told)
    assert note.endswith(").")
    for name in ("out_of_fold.csv", "numbers.json"):
        (tmp_path / "cells" / name).unlink()
    trained(few, tmp_path)  # now nothing collapses
    assert not (tmp_path / "cells/notes.json").exists()


def test_only_the_fold_that_collapsed_differs(few: Planted, tmp_path: Path) -> None:
    before = trained(few, tmp_path / "a")
    with where(lambda owners: 4 not in owners):
        after = trained(few, tmp_path / "b")
    same = before["probability"] == after["probability"]
    assert same[FOLDS != 2].all()
    assert not same[FOLDS == 2].any()


def test_where_k_means_collapses_too_the_member_is_left_out_until_it_can_be_trained(
    few: Planted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with where(lambda owners: True), patch.object(clustering, "nearest_centroid", collapse), seeing(few):
        with pytest.raises(Collapse, match="forced"):
            member.train(job(few, tmp_path))
        train_or_leave_out(member.TRAINING, job(few, tmp_path))
        assert predicted(few, np.arange(14), np.arange(14, 17)).keys() == set(COLUMNS)
        for column in predicted(few, np.arange(14), np.arange(14, 17)).values():
            np.testing.assert_allclose(column, few.bags.labels[:14].mean())
    assert "the ensemble does without the member scan" in caplog.text
    sentence = "The member scan is left out, because its training failed: cells: forced."
    assert notes_of(tmp_path, registry.MEMBERS) == [sentence]
    assert [one.name for one in registry.present(tmp_path)] == ["baseline", "moe", "imagenet"]
    with seeing(few):
        train_or_leave_out(member.TRAINING, job(few, tmp_path))
    assert notes_of(tmp_path, registry.MEMBERS) == []
    assert registry.present(tmp_path) == registry.MEMBERS


def test_another_error_is_none_that_a_member_is_left_out_for(few: Planted, tmp_path: Path) -> None:
    def broken(_: MemberJob) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        train_or_leave_out(replace(member.TRAINING, train=broken), job(few, tmp_path))
    assert not absent.is_absent(tmp_path, member.TRAINING)
