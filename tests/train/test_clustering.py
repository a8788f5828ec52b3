"""SCAN's loss compared with the paper's equation 2 written as loops; the loss that selects a head."""

import math

import pytest
import torch
from torch import Tensor, nn

from train.members.scan.clustering import head_losses, scan_loss
from train.members.scan.network import ScanDimensions, ScanNetwork, embed_all

CPU = torch.device("cpu")


def shares(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(2).softmax(-1)


def slow_scan_loss(anchors: Tensor, neighbours: Tensor, weight: float) -> float:
    """Van Gansbeke et al. 2020, equation 2: -1/N sum log<p, p'> + weight * sum over classes of mean p * log mean p."""
    first, second = anchors.tolist(), neighbours.tolist()
    agreement = sum(math.log(sum(a * b for a, b in zip(p, q, strict=True))) for p, q in zip(first, second, strict=True))
    means = [sum(row[c] for row in first) / len(first) for c in range(len(first[0]))]
    return float(-agreement / len(first) + weight * sum(mean * math.log(mean) for mean in means))


def test_equals_the_slow_reference_for_each_head() -> None:
    anchors, neighbours = shares(3, 10, 5, seed=1), shares(3, 10, 5, seed=2)
    losses = scan_loss(anchors, neighbours, 5.0)
    assert losses.shape == (3,)
    for head in range(3):
        assert abs(losses[head].item() - slow_scan_loss(anchors[head], neighbours[head], 5.0)) < 1e-9
        torch.testing.assert_close(scan_loss(anchors[head], neighbours[head], 5.0), losses[head])


def test_order_of_pictures_does_not_matter() -> None:
    anchors, neighbours = shares(10, 5, seed=1), shares(10, 5, seed=2)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(scan_loss(anchors[order], neighbours[order], 5.0), scan_loss(anchors, neighbours, 5.0))


def test_collapse_costs_more_than_balanced_agreement() -> None:
    balanced = torch.eye(4, dtype=torch.float64).repeat(5, 1)
    collapsed = torch.eye(4, dtype=torch.float64)[[0] * 20]
    undecided = torch.full((20, 4), 0.25, dtype=torch.float64)
    best = scan_loss(balanced, balanced, 5.0).item()
    assert best == pytest.approx(-5 * math.log(4), abs=1e-6)
    assert scan_loss(collapsed, collapsed, 5.0).item() == pytest.approx(0, abs=1e-5)
    assert scan_loss(undecided, undecided, 5.0).item() == pytest.approx(best + math.log(4), abs=1e-6)


def test_disagreement_stays_finite() -> None:
    one, other = torch.eye(2).repeat(3, 1), torch.eye(2).flip(0).repeat(3, 1).requires_grad_()
    loss = scan_loss(one, other, 5.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert other.grad is not None
    assert torch.isfinite(other.grad).all()


@pytest.mark.parametrize("better", [0, 1, 2])
def test_the_head_that_separates_has_the_lowest_loss(better: int) -> None:
    torch.manual_seed(0)
    crops = torch.randint(0, 40, (8, 112, 112, 3), dtype=torch.uint8)
    crops[4:] += 200  # four dark pictures, four bright ones
    neighbours = torch.tensor([[1], [2], [3], [0], [5], [6], [7], [4]])
    network = ScanNetwork(ScanDimensions(widths=(4, 8), clusters=2, heads=3)).eval()
    embedding = embed_all(network.backbone, crops, CPU)
    direction = embedding[4:].mean(0) - embedding[:4].mean(0)
    direction = 20 * direction / direction.square().sum()
    with torch.no_grad():
        for index, head in enumerate(network.heads):
            assert isinstance(head, nn.Linear)
            # The other heads give equal probabilities.
            sign = torch.tensor([-1.0, 1.0]) if index == better else torch.zeros(2)
            head.weight.copy_(sign[:, None] * direction)
            head.bias.copy_(-sign * (direction @ embedding.mean(0)))
    losses = head_losses(network, crops, neighbours, 5.0, CPU)
    assert losses.shape == (3,)
    assert losses.argmin() == better
    assert network.with_head(better)(crops)[0].argmax(1).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
