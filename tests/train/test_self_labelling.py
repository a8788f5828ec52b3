"""Self-labelling's loss against a slow reference; asking for labels leaves no trace in the network."""

import math

import pytest
import torch

from train.scan.network import ScanDimensions, ScanNetwork
from train.scan.self_labelling import balanced_cross_entropy, confident_classes


def slow_balanced_cross_entropy(logits: list[list[float]], classes: list[int], sure: list[bool]) -> float:
    """The mean over classes of the mean cross-entropy of a class's sure pictures."""
    by_class: dict[int, list[float]] = {}
    for row, chosen, trusted in zip(logits, classes, sure, strict=True):
        if trusted:
            total = sum(math.exp(value) for value in row)
            by_class.setdefault(chosen, []).append(-math.log(math.exp(row[chosen]) / total))
    means = [sum(losses) / len(losses) for losses in by_class.values()]
    return sum(means) / len(means)


def test_equals_the_slow_reference() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    classes = torch.tensor([0] * 20 + [1] * 5 + [3] * 5)
    sure = torch.rand(30, generator=generator) > 0.3
    expected = slow_balanced_cross_entropy(logits.tolist(), classes.tolist(), sure.tolist())
    assert balanced_cross_entropy(logits, classes, sure).item() == pytest.approx(expected, abs=1e-9)


def test_a_large_class_weighs_no_more_than_a_small_one() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    few = balanced_cross_entropy(logits, torch.tensor([0, 1]), torch.tensor([True, True]))
    many = balanced_cross_entropy(logits[[0] * 9 + [1]], torch.tensor([0] * 9 + [1]), torch.ones(10, dtype=torch.bool))
    torch.testing.assert_close(many, few)


def test_unsure_pictures_do_not_count() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, -5.0]])
    loss = balanced_cross_entropy(logits, torch.tensor([0, 1, 1]), torch.tensor([True, True, False]))
    torch.testing.assert_close(loss, balanced_cross_entropy(logits[:2], torch.tensor([0, 1]), torch.ones(2).bool()))


def test_no_sure_picture_costs_nothing_and_moves_nothing() -> None:
    logits = torch.randn(5, 3, requires_grad=True)
    loss = balanced_cross_entropy(logits, torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.bool))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_confident_classes_leave_the_network_as_it_was(training: bool) -> None:
    torch.manual_seed(0)
    network = ScanNetwork(ScanDimensions(widths=(4, 8), clusters=5))
    images = torch.randint(0, 256, (6, 112, 112, 3), dtype=torch.uint8)
    expected, _ = network.eval()(images)
    before = {name: values.clone() for name, values in network.state_dict().items()}
    network.train(training)
    probability, classes = confident_classes(network, images)
    assert all(module.training == training for module in network.modules())
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    torch.testing.assert_close(probability, expected.max(1).values)
    assert torch.equal(classes, expected.argmax(1))
    assert not probability.requires_grad
