"""A stage that collapses leaves the previous one in place. Stages are stubs that return the classes a test needs."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from tests.train.bags import make_bags
from train.core.checkpoint import save_network
from train.data.bags import Bags
from train.members.backbones import BackboneDimensions
from train.members.recipes import SMALL
from train.members.scan import stages
from train.members.scan.backbone import Backbone
from train.members.scan.measures import Collapse
from train.members.scan.network import ScanDimensions, ScanNetwork
from train.members.scan.stages import load_scan, train_scan

CPU = torch.device("cpu")
RECIPE = replace(SMALL.scan, neighbours=2, clusters=3, fused=2, heads=2)
BRIGHTNESS = [0, 0, 1, 1, 2, 2, 0, 1, 2, 2, 1, 0]  # of the twelve pictures, which determines their class


def drawn_bags() -> Bags:
    bags = make_bags([0, 1, 0, 1], [3, 3, 3, 3], size=112)
    grey = torch.tensor(BRIGHTNESS, dtype=torch.uint8)[:, None, None, None] * 100 + 20
    return replace(bags, crops=grey.expand(12, 112, 112, 3).clone())


def network(*heads: Sequence[int]) -> ScanNetwork:
    """A network in which each head puts dark, medium and bright pictures into the three given classes."""

    class Grey(Backbone):
        def forward(self, images: Tensor) -> Tensor:
            level = ((images[:, 0, 0, 0].long() - 20) / 100).round().long()
            return nn.functional.one_hot(level, 4).float()

    dimensions = ScanDimensions(widths=(4, 4), clusters=3, heads=len(heads))
    made = ScanNetwork(dimensions)
    made.backbone = Grey(BackboneDimensions((4, 4)))
    with torch.no_grad():
        for head, classes in zip(made.heads, heads, strict=True):
            assert isinstance(head, nn.Linear)
            head.bias.zero_()
            head.weight.zero_()
            for level, chosen in enumerate(classes):
                head.weight[chosen, level] = 20.0
    return made.eval()


def run_stages(tmp_path: Path, clustered: ScanNetwork, student: ScanNetwork) -> None:
    """train_scan with stubs. Checkpoints store only weights, so loading returns the stubs."""
    made = {"clustering": clustered, "self_labelling": student}

    def load(path: Path) -> ScanNetwork:
        if path.stem == "scan":
            kept = json.loads((path.parent / "self_labelling.json").read_text())["kept"]
            return made["self_labelling" if kept else "clustering"]
        return made[path.stem]

    def head_alone(self: ScanNetwork, chosen: int) -> ScanNetwork:
        weight = self.heads[chosen].get_parameter("weight")
        single = network([int(weight[:, level].argmax()) for level in range(3)])
        made["clustering"] = single
        return single

    with (
        patch.object(stages, "train_pretext", lambda *arguments: clustered.backbone),
        patch.object(stages, "load_backbone", lambda path: clustered.backbone),
        patch.object(stages, "train_clustering", lambda *arguments: clustered),
        patch.object(stages, "train_self_labelling", lambda *arguments: student),
        patch.object(stages, "load_scan", load),
        patch.object(ScanNetwork, "with_head", head_alone),
    ):
        train_scan(drawn_bags(), tmp_path, RECIPE, 0, CPU)


def classes_of(tmp_path: Path, name: str) -> list[list[float]]:
    weight: list[list[float]] = load_scan(tmp_path / "scan" / name).heads[0].get_parameter("weight").tolist()
    return weight


def test_sound_self_labelling_is_kept(tmp_path: Path) -> None:
    run_stages(tmp_path, network([0, 1, 2], [1, 2, 0]), network([2, 0, 1]))
    assert json.loads((tmp_path / "scan/self_labelling.json").read_text()) == {"kept": True, "reason": ""}
    assert classes_of(tmp_path, "scan.safetensors") == classes_of(tmp_path, "self_labelling.safetensors")
    table = pd.read_csv(tmp_path / "scan/stages.csv")
    assert table["stage"].str.split(" ").str[0].tolist() == ["pretext", "clustering", "self_labelling", "fused,"]
    assert table["classes"].tolist()[1:] == [3, 3, 2]


def test_self_labelling_that_loses_a_class_leaves_the_clustering_standing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_stages(tmp_path, network([0, 1, 2], [1, 2, 0]), network([0, 1, 1]))
    verdict = json.loads((tmp_path / "scan/self_labelling.json").read_text())
    assert verdict == {"kept": False, "reason": "1 of 3 classes have no pictures left, the first is class 2"}
    assert "no pictures left, the first is class 2. The clustering result is used" in caplog.text
    assert classes_of(tmp_path, "scan.safetensors") == classes_of(tmp_path, "clustering.safetensors")
    assert not (tmp_path / "scan/self_labelling.safetensors").exists()


def test_a_head_that_lost_a_class_is_passed_over(tmp_path: Path) -> None:
    run_stages(tmp_path, network([0, 0, 1], [1, 2, 0]), network([0, 1, 2]))
    weight = torch.tensor(classes_of(tmp_path, "clustering.safetensors"))
    assert weight.argmax(0).tolist()[:3] == [1, 2, 0]


def test_cut_off_before_its_verdict_self_labelling_is_not_trained_again(tmp_path: Path) -> None:
    run_stages(tmp_path, network([0, 1, 2], [1, 2, 0]), network([2, 0, 1]))
    (tmp_path / "scan/self_labelling.json").unlink()
    (tmp_path / "scan/scan.safetensors").unlink()
    before = (tmp_path / "scan/self_labelling.safetensors").stat().st_mtime_ns
    with patch.object(stages, "save_network", wraps=save_network) as saved:
        run_stages(tmp_path, network([0, 1, 2], [1, 2, 0]), network([2, 0, 1]))
    assert [call.args[0].name for call in saved.call_args_list] == ["scan.safetensors"]
    assert (tmp_path / "scan/self_labelling.safetensors").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "scan/self_labelling.json").read_text())["kept"]


def test_a_stability_seed_that_collapses_is_named_and_the_others_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound, collapsed = network([0, 1, 2], [1, 2, 0]), network([0, 0, 1], [2, 2, 2])
    run_stages(tmp_path, sound, network([2, 0, 1]))
    bags, neighbours = drawn_bags(), torch.tensor([[index] for index in range(12)])
    with patch.object(stages, "train_clustering", lambda *arguments: collapsed):
        stages._measure_stability(
            sound.backbone, neighbours, bags, tmp_path / "scan", RECIPE, range(1, 3), CPU
        )  # the first seed is the run's own, whose clustering exists already
    facts = json.loads((tmp_path / "scan/stability.json").read_text())
    assert facts["collapsed"] == [2]
    assert facts["agreement"] is None
    assert "scan stability, seed 2: scan clustering: head" in caplog.text


def test_whole_trainings_are_compared_by_their_final_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first seed is the run's own; of the others, one collapses and one only permutes the class numbers."""
    folder = tmp_path / "scan"
    folder.mkdir()
    pd.DataFrame({"cell_class": [0, 0, 1, 1, 2, 2]}).to_csv(folder / "classes.csv", index=False)
    trained, reference = [], np.array([0, 0, 1, 1, 2, 2])

    def train(bags: Bags, run: Path, recipe: object, seed: int, device: object, *, reference: object) -> None:
        trained.append((run, seed, reference))
        if seed == 5:
            raise Collapse("all in one")
        (run / "scan").mkdir(parents=True)
        pd.DataFrame({"cell_class": [2, 2, 0, 0, 1, 1]}).to_csv(run / "scan" / "classes.csv", index=False)

    with patch.object(stages, "train_scan", train):
        stages._measure_whole_stability(drawn_bags(), folder, RECIPE, range(4, 7), CPU, reference)
    assert trained == [(folder / "seed-5", 5, reference), (folder / "seed-6", 6, reference)]
    facts = json.loads((folder / "whole_stability.json").read_text())
    assert facts["collapsed"] == [5]
    assert facts["agreement"] == pytest.approx(1)
    assert "scan stability, seed 5: all in one" in caplog.text


def test_fewer_classes_are_enough_where_the_recipe_says_so(tmp_path: Path) -> None:
    with patch.object(sys.modules[__name__], "RECIPE", replace(RECIPE, least_classes=2, largest_class=0.8)):
        run_stages(tmp_path, network([0, 0, 1], [2, 2, 2]), network([0, 0, 1]))
    weight = torch.tensor(classes_of(tmp_path, "clustering.safetensors"))
    assert weight.argmax(0).tolist()[:3] == [0, 0, 1]


def test_clustering_that_collapsed_in_every_head_stops_and_leaves_the_pretext(tmp_path: Path) -> None:
    with pytest.raises(Collapse, match=r"scan clustering: head .*no pictures left.*head .*The pretext is kept"):
        run_stages(tmp_path, network([0, 0, 1], [2, 2, 2]), network([0, 1, 2]))
    assert sorted(path.name for path in (tmp_path / "scan").glob("*.safetensors")) == ["pretext.safetensors"]
