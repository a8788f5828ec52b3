"""The table of backbone sizes: what is trained, the contents, and how speed is measured."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from infer.errors import UsageError
from tests.train.bags import make_bags
from train.core.checkpoint import load_dimensions
from train.data.bags import Bags
from train.experiments import scan_sizes as sizes
from train.experiments.scan_sizes import compare_sizes, pictures_per_second, shortened
from train.members.backbones import BACKBONES
from train.members.recipes import SMALL, BayesRecipe
from train.members.scan.measures import Collapse

pytestmark = pytest.mark.slow  # an experiment: nothing that ships depends on it

CPU = torch.device("cpu")
LABELS = [0, 1] * 5
FOLDS = np.repeat(np.arange(5), 2)


def drawn_bags() -> Bags:
    return make_bags(LABELS, [3] * 10, size=112)


def write_found(bags: Bags, run: Path, of_patient: np.ndarray) -> None:
    """Writes the files of train_scan: every picture in its patient's class, and a stage table."""
    owner = bags.patient_of_image()
    table = pd.DataFrame(
        {
            "patient_id": [bags.patient_ids[index] for index in owner],
            "image": bags.image_names,
            "cell_class": of_patient[owner],
        }
    )
    (run / "scan").mkdir(parents=True)
    table.to_csv(run / "scan" / "classes.csv", index=False)
    stages = {"stage": ["clustering", "fused"], "classes": [20, 2], "agreement_with_reference": [0.1, 0.25]}
    pd.DataFrame(stages).to_csv(run / "scan" / "stages.csv", index=False)


def test_a_row_has_the_final_stage_the_folds_figures_or_why_there_are_none(tmp_path: Path) -> None:
    bags = drawn_bags()

    def train(of: Bags, run: Path, recipe: object, *_: object, **__: object) -> None:
        if run.name == "width-64":
            raise Collapse("all in one")
        write_found(of, run, np.array(LABELS) if run.name == "width-32" else FOLDS)

    names = ("width-32", "width-16-half-input", "width-64")
    with patch.object(sizes, "train_scan", train):
        table = compare_sizes(bags, FOLDS, tmp_path, SMALL.scan, BayesRecipe(1e-2), 0, CPU, names=names)
    assert table["size"].tolist() == list(names)
    assert table["input"].tolist() == [112, 56, 112]
    assert table["widths"].tolist() == ["32 64 128 256", "16 32 64 128", "64 128 256 512"]
    assert table["parameters"][0] > 3 * table["parameters"][1]
    assert table["classes"].tolist()[:2] == [2, 2]
    assert table["agreement_with_reference"].tolist()[:2] == [0.25, 0.25]
    assert table["auc_pictures_only"][0] == 1  # the classes are the labels
    assert table["auc_pictures_only"][1] == 0.5  # not informative: one patient of each label in each class
    assert table["collapsed"].tolist()[2] == "all in one"
    assert np.isnan(table["auc"][2])
    assert (table["pictures_per_second"] > 0).all()
    written = pd.read_csv(tmp_path / "sizes" / "sizes.csv")
    assert written["auc"].tolist()[:2] == pytest.approx(table["auc"].tolist()[:2])


def test_each_size_is_trained_as_large_and_as_long_as_it_says(tmp_path: Path) -> None:
    bags = drawn_bags()
    recipe = replace(SMALL.scan, neighbours=2, clusters=3, fused=2, heads=2, batch_images=16, least_classes=1)
    recipe = replace(recipe, largest_class=1.0, pretext=replace(recipe.pretext, epochs=8))
    compare_sizes(bags, FOLDS, tmp_path, recipe, BayesRecipe(1e-2), 0, CPU, names=("width-16-half-input",))
    folder = tmp_path / "sizes" / "width-16-half-input" / "scan"
    dimensions = load_dimensions(folder / "scan.safetensors")
    assert (dimensions["widths"], dimensions["shrink"]) == ((16, 32, 64, 128), 2)
    assert len(pd.read_csv(folder / "pretext.history.csv")) == 2
    assert json.loads((folder / "fusion.json").read_text())


def test_a_quarter_of_the_epochs_one_at_least() -> None:
    short = shortened(SMALL.scan)
    epochs = [stage.epochs for stage in (short.pretext, short.clustering, short.self_labelling)]
    assert epochs == [5, 2, 1]
    assert short.pretext.learning_rate == SMALL.scan.pretext.learning_rate
    assert short.backbone == SMALL.scan.backbone


def test_speed_is_the_median_and_the_first_round_does_not_count() -> None:
    """A clock that advances only in the networks: 9 s in the first round, then 1, 2, 8 s, or ten times that."""
    now = 0.0
    taken = iter([9, 90, 1, 10, 2, 20, 8, 80])

    class Slow(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal now
            now += next(taken)
            assert not self.training
            return images, images

    networks = {"quick": Slow(), "slow": Slow()}
    with patch("time.perf_counter", lambda: now):
        speeds = pictures_per_second(networks, torch.zeros(40, 2), CPU, rounds=3)  # type: ignore[arg-type]
    assert speeds == {"quick": 20.0, "slow": 2.0}


def test_an_unknown_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown size huge\. Choose from width-32, "):
        compare_sizes(drawn_bags(), FOLDS, tmp_path, SMALL.scan, SMALL.bayes, 0, CPU, names=("huge",))
    assert set(BACKBONES) >= {"width-32", "width-16-half-input"}
