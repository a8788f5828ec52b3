"""Folds and random seeds are reproducible."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from infer.errors import UsageError
from tests.train.bags import make_bags
from train.core.seeds import seeded
from train.data.folds import FOLDS, assign_folds

LABELS = [1, 0] * 10 + [1] * 13


def test_folds_are_stratified_and_hold_each_patient_out_once(tmp_path: Path) -> None:
    bags = make_bags(LABELS, [1] * len(LABELS))
    folds = assign_folds(bags, tmp_path, seed=0)
    assert folds.shape == (33,)
    assert set(folds.tolist()) == set(range(FOLDS))
    for fold in range(FOLDS):
        held_out = bags.labels[folds == fold]
        assert (held_out == 0).sum() == 2
        assert (held_out == 1).sum() in (4, 5)


def test_folds_follow_the_seed_and_not_the_folder(tmp_path: Path) -> None:
    bags = make_bags(LABELS, [1] * len(LABELS))
    folds = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        folds.append(assign_folds(bags, tmp_path / name, seed))
    assert np.array_equal(folds[0], folds[1])
    assert not np.array_equal(folds[0], folds[2])


def test_folds_are_kept_in_the_run(tmp_path: Path) -> None:
    bags = make_bags(LABELS, [1] * len(LABELS))
    folds = assign_folds(bags, tmp_path, seed=0)
    table = pd.read_csv(tmp_path / "folds.csv")
    assert table["patient_id"].tolist() == bags.patient_ids
    assert table["fold"].tolist() == folds.tolist()
    assert np.array_equal(assign_folds(bags, tmp_path, seed=5), folds)  # the stored folds are used


def test_folds_of_other_patients_are_refused(tmp_path: Path) -> None:
    assign_folds(make_bags(LABELS, [1] * len(LABELS)), tmp_path, seed=0)
    with pytest.raises(UsageError, match=r"folds\.csv: lists other patients"):
        assign_folds(make_bags([*LABELS, 0], [1] * 34), tmp_path, seed=0)


def draw(seed: int, part: str) -> list[float]:
    rng = seeded(seed, part)
    return [*rng.random(3).tolist(), *torch.rand(3).tolist()]


def test_seeded_repeats_whatever_ran_before() -> None:
    first = draw(0, "moe fold-1")
    torch.rand(100)
    assert draw(0, "moe fold-1") == first


def test_seeds_and_parts_differ() -> None:
    draws = [draw(seed, part) for seed in (0, 1) for part in ("moe fold-1", "moe fold-2", "baseline fold-1")]
    for column in (0, 5):  # first from numpy, last from torch
        assert len({row[column] for row in draws}) == 6
