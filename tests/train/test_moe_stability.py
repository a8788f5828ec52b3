"""The comparison of ways to stabilise the mixture of experts, from predictions with known metrics."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.train.bags import make_bags
from train.core.fitting import FitRecipe
from train.data.augment import orientations, turned_bags
from train.data.bags import Bags
from train.experiments import stability
from train.experiments.stability import WAYS, compare, summarise
from train.members.mixture import score
from train.members.mixture_network import MixtureOfExperts, MoeDimensions
from train.members.recipes import SMALL

pytestmark = pytest.mark.slow  # an experiment: nothing that ships depends on it

CPU = torch.device("cpu")


def test_each_way_has_its_seeds_mean_and_the_figures_of_their_mean_probability() -> None:
    """Two seeds, each wrong about a different patient: their mean is right."""
    label = [1, 1, 0, 0]
    first, second = [0.9, 0.4, 0.1, 0.2], [0.4, 0.9, 0.1, 0.2]
    parts = [
        pd.DataFrame({"patient_id": list("abcd"), "label": label, "probability": values, "seed": seed})
        for seed, values in enumerate((first, second))
    ]
    predictions = pd.concat(parts).assign(losses="x", weights="last", gate="joint", turned="no")
    table = summarise(predictions)
    assert len(table) == 1
    row = table.iloc[0]
    assert row["balanced_accuracy"] == 0.75
    assert row["balanced_accuracy_spread"] == 0
    assert row["auc"] == 1
    assert row["seeds_averaged_balanced_accuracy"] == 1
    mean = np.array([0.65, 0.65, 0.1, 0.2])
    expected = -np.mean(np.log(np.where(label, mean, 1 - mean)))
    assert row["seeds_averaged_log_loss"] == pytest.approx(expected)


def test_orientations_are_the_eight_of_the_square() -> None:
    images = torch.arange(2 * 3 * 3 * 3).reshape(2, 3, 3, 3).to(torch.uint8)
    turned = orientations(images)
    assert turned.shape == (16, 3, 3, 3)
    assert len({picture.numpy().tobytes() for picture in turned}) == 16
    corners = {tuple(sorted(picture[::2, ::2].reshape(-1).tolist())) for picture in turned}
    assert len(corners) == 2  # corners of different pictures are not mixed


def test_turned_bags_do_not_depend_on_how_a_picture_lies() -> None:
    torch.manual_seed(0)
    bags = make_bags([0, 1, 1], [2, 3, 2], size=112)
    lying = replace(bags, crops=torch.rot90(bags.crops, 1, (1, 2)).flip(1))
    network = MixtureOfExperts(MoeDimensions()).eval()
    with torch.no_grad():
        network.head.image_map.weight.mul_(1000)  # an untrained expert hardly distinguishes pictures
    some = np.array([0, 2])
    plain = [score(network, of, some, CPU)["image"] for of in (bags, lying)]
    assert np.abs(plain[0] - plain[1]).max() > 1e-5
    one, other = (score(network, turned_bags(of, some), some, CPU)["image"] for of in (bags, lying))
    np.testing.assert_allclose(one, other, atol=1e-7)
    assert turned_bags(bags, some).offsets.tolist() == [0, 16, 16, 32]


def tiny_bags() -> Bags:
    return make_bags([0, 1] * 12, [2] * 24, size=112)


def test_all_ways_are_compared_and_a_second_call_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stability, "LATE_STEPS", 20)  # the result does not matter here
    recipe = replace(SMALL.moe, fit=FitRecipe(epochs=2, learning_rate=1e-3), images_per_patient=1, norm_images=8)
    table = compare(tiny_bags(), tmp_path, recipe, range(2), CPU)
    assert len(table) == 3 * 2 * 2 * 2
    assert not table[WAYS].duplicated().any()
    assert table["auc"].between(0, 1).all()
    predictions = pd.read_csv(tmp_path / "stability/predictions.csv")
    assert predictions.groupby([*WAYS, "seed"]).size().eq(5).all()  # a fifth of 24 patients
    rows = ["losses", "weights", "turned", "seed", "patient_id"]
    late = predictions.pivot_table(index=rows, columns="gate", values="probability")
    assert (late["joint"] - late["late"]).abs().max() > 1e-4
    free, held = (late.xs(way)["joint"].to_numpy() for way in ("each expert too", "each expert too, gate held"))
    assert np.abs(free - held).max() > 1e-6
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "stability").glob("*.safetensors")}
    assert len(before) == 3 * 2 * 2
    again = compare(tiny_bags(), tmp_path, recipe, range(2), CPU)
    pd.testing.assert_frame_equal(again, table)
    assert {path: path.stat().st_mtime_ns for path in before} == before
