"""The training loop on a model of one weight, small enough to follow by hand."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from train.fitting import TrainingError, fit
from train.recipes import FitRecipe


@dataclass
class Watched:
    """A linear model's training, its weight noted at the start of each epoch."""

    network: nn.Linear = field(default_factory=lambda: nn.Linear(1, 1, bias=False))
    weights: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    bad: tuple[int, int] | None = None  # epoch and batch of a loss that is not finite

    def batches(self, epoch: int) -> Iterator[Tensor]:
        self.weights.append(self.network.weight.item())
        for number in range(3):
            yield torch.tensor([[float("nan") if self.bad == (epoch, number) else 1.0 + number]])

    def loss(self, network: nn.Linear, batch: Tensor) -> Tensor:
        value: Tensor = (network(batch) - 2 * batch).square().mean()
        self.losses.append(value.item())
        return value

    def fit(self, recipe: FitRecipe, folder: Path) -> nn.Linear:
        return fit(self.network, self.batches, self.loss, recipe, "toy", folder / "history.csv")


def test_stops_at_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    watched = Watched(bad=(1, 2))
    with pytest.raises(TrainingError, match=r"toy: the loss is nan in epoch 1, batch 2"):
        watched.fit(FitRecipe(epochs=5, learning_rate=0.1), tmp_path)
    assert torch.isfinite(watched.network.weight).all()  # it stopped before the step


@pytest.mark.parametrize(("epochs", "averaged"), [(8, 2), (12, 3), (3, 1), (1, 1)])
def test_weights_are_averaged_over_the_last_quarter_of_the_epochs(tmp_path: Path, epochs: int, averaged: int) -> None:
    torch.manual_seed(0)
    watched = Watched()
    trained = watched.fit(FitRecipe(epochs, learning_rate=0.1), tmp_path)
    after_epoch = [*watched.weights[1:], watched.network.weight.item()]
    assert len(after_epoch) == epochs
    assert trained.weight.item() == pytest.approx(sum(after_epoch[-averaged:]) / averaged, abs=1e-6)
    assert not trained.training


def test_running_statistics_are_averaged_too(tmp_path: Path) -> None:
    network = nn.BatchNorm1d(1, momentum=None)  # its mean is the mean of all batches so far

    def loss(net: nn.BatchNorm1d, batch: Tensor) -> Tensor:
        return net(batch).sum()  # type: ignore[no-any-return]

    recipe = FitRecipe(epochs=2, learning_rate=0.0, averaged_share=1.0)
    trained = fit(network, lambda epoch: [torch.full((4, 1), 6.0 * epoch)], loss, recipe, "toy", tmp_path / "h.csv")
    assert trained.running_mean is not None
    assert trained.running_mean.item() == pytest.approx((0 + 3) / 2)


def test_history_has_a_row_an_epoch_and_the_rate_decays(tmp_path: Path) -> None:
    watched = Watched()
    watched.fit(FitRecipe(epochs=4, learning_rate=0.2, decay=0.5), tmp_path)
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "learning_rate", "seconds"]
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.2, 0.1, 0.05, 0.025])
    for epoch, row in enumerate(rows):
        assert float(row["loss"]) == pytest.approx(sum(watched.losses[3 * epoch : 3 * epoch + 3]) / 3)


def test_the_rate_that_decays_is_the_one_used(tmp_path: Path) -> None:
    """Adam's steps are about as long as the rate: with a constant gradient's sign, exactly."""
    watched = Watched()
    nn.init.constant_(watched.network.weight, -100.0)
    recipe = FitRecipe(epochs=3, learning_rate=0.01, decay=0.1, weight_decay=0.0)
    watched.fit(recipe, tmp_path)
    first, second, third = watched.weights
    assert second - first == pytest.approx(3 * 0.01, rel=0.2)
    assert third - second == pytest.approx(3 * 0.001, rel=0.2)


def test_groups_have_rates_of_their_own(tmp_path: Path) -> None:
    network = nn.Linear(2, 1, bias=False)
    slow, fast = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    network.register_parameter("slow", slow)
    network.register_parameter("fast", fast)
    groups: list[dict[str, object]] = [{"params": [slow]}, {"params": [fast], "lr": 0.1}]
    fit(
        network,
        lambda epoch: [1.0],
        lambda net, batch: (slow + fast - 10).square().sum(),
        FitRecipe(epochs=1, learning_rate=0.01, weight_decay=0.0),
        "toy",
        tmp_path / "history.csv",
        groups,
    )
    assert slow.item() == pytest.approx(0.01, rel=1e-3)
    assert fast.item() == pytest.approx(0.1, rel=1e-3)


def test_it_learns(tmp_path: Path) -> None:
    trained = Watched().fit(FitRecipe(epochs=60, learning_rate=0.3, weight_decay=0.0), tmp_path)
    assert trained.weight.item() == pytest.approx(2.0, abs=0.05)
