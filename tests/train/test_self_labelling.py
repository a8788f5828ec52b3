"""Self-labelling: the loss compared with a slow reference, the selected pictures, and what training must not change."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from train.core.fitting import FitRecipe, Job
from train.members.recipes import SMALL
from train.members.scan.network import ScanDimensions, ScanNetwork
from train.members.scan.self_labelling import balanced_cross_entropy, sure_pictures, train_self_labelling


def slow_balanced_cross_entropy(logits: list[list[float]], classes: list[int]) -> float:
    """The mean over classes of the mean cross-entropy of a class's pictures."""
    by_class: dict[int, list[float]] = {}
    for row, chosen in zip(logits, classes, strict=True):
        total = sum(math.exp(value) for value in row)
        by_class.setdefault(chosen, []).append(-math.log(math.exp(row[chosen]) / total))
    means = [sum(losses) / len(losses) for losses in by_class.values()]
    return sum(means) / len(means)


def test_equals_the_slow_reference() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    classes = torch.tensor([0] * 20 + [1] * 5 + [3] * 5)
    expected = slow_balanced_cross_entropy(logits.tolist(), classes.tolist())
    assert balanced_cross_entropy(logits, classes).item() == pytest.approx(expected, abs=1e-9)


def test_a_large_class_weighs_no_more_than_a_small_one() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    few = balanced_cross_entropy(logits, torch.tensor([0, 1]))
    many = balanced_cross_entropy(logits[[0] * 9 + [1]], torch.tensor([0] * 9 + [1]))
    torch.testing.assert_close(many, few)


def test_each_class_is_taught_by_its_own_surest_pictures() -> None:
    """Class 0 has three confident pictures; class 1 has none, so its better half is used; class 2 has no pictures."""
    first, second = [0.99, 0.98, 0.97, 0.4], [0.5, 0.6, 0.45, 0.55]
    rows = [[p, (1 - p) / 2, (1 - p) / 2] for p in first] + [[(1 - p) / 2, p, (1 - p) / 2] for p in second]
    half = sure_pictures(torch.tensor(rows), confidence=0.9, trusted_share=0.5)
    assert half.tolist() == [True, True, True, False, False, True, False, True]
    quarter = sure_pictures(torch.tensor(rows), confidence=0.9, trusted_share=0.25)
    assert quarter.tolist() == [True, True, True, False, False, True, False, False]


def test_training_leaves_batch_statistics_and_the_network_given_as_they_were(tmp_path: Path) -> None:
    """Statistics updated on augmented views would no longer fit plain pictures, and classes would drift."""
    torch.manual_seed(0)
    network = ScanNetwork(ScanDimensions(widths=(4, 8), clusters=3)).eval()
    before = {name: values.clone() for name, values in network.state_dict().items()}
    crops = torch.randint(0, 256, (8, 112, 112, 3), dtype=torch.uint8)
    recipe = replace(SMALL.scan, batch_images=4, trusted_share=1.0, self_labelling=FitRecipe(2, learning_rate=0.01))
    job = Job("toy", tmp_path / "student.safetensors", seed=0)
    student = train_self_labelling(network, crops, recipe, job, torch.device("cpu"))
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    after = student.state_dict()
    statistics = [name for name in after if "running" in name]
    assert statistics
    assert all(torch.equal(after[name], before[name]) for name in statistics)
    assert not torch.equal(after["heads.0.weight"], before["heads.0.weight"])
