"""The training loop on a model with one weight, small enough to verify by hand."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from train.core.checkpoint import CheckpointError, progress_path, save_network
from train.core.fitting import FitRecipe, Job, TrainingError, fit


def job(folder: Path, best: str | None = None) -> Job:
    return Job("toy", folder / "toy.safetensors", seed=3, best=best)


@dataclass
class Watched:
    """Training of a linear model; its weight is recorded at the start of each epoch."""

    network: nn.Linear = field(default_factory=lambda: nn.Linear(1, 1, bias=False))
    weights: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    bad: tuple[int, int] | None = None  # epoch and batch with a non-finite loss

    def batches(self, rng: np.random.Generator) -> Iterator[Tensor]:
        epoch = len(self.weights)
        self.weights.append(self.network.weight.item())
        for number in range(3):
            yield torch.tensor([[float("nan") if self.bad == (epoch, number) else 1.0 + number]])

    def loss(self, network: nn.Linear, batch: Tensor) -> Tensor:
        value: Tensor = (network(batch) - 2 * batch).square().mean()
        self.losses.append(value.item())
        return value

    def fit(self, recipe: FitRecipe, folder: Path) -> nn.Linear:
        return fit(self.network, self.batches, self.loss, recipe, job(folder))


def test_stops_at_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    watched = Watched(bad=(1, 2))
    with pytest.raises(TrainingError, match=r"toy: stopped, the loss is nan in epoch 1, batch 2"):
        watched.fit(FitRecipe(epochs=5, learning_rate=0.1), tmp_path)
    assert torch.isfinite(watched.network.weight).all()  # stopped before the optimiser step


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
    network = nn.BatchNorm1d(1, momentum=None)  # with this momentum it is the mean of all batches so far

    def loss(net: nn.BatchNorm1d, batch: Tensor) -> Tensor:
        return net(batch).sum()  # type: ignore[no-any-return]

    recipe = FitRecipe(epochs=2, learning_rate=0.0, averaged_share=1.0)
    inputs = iter([0.0, 6.0])
    trained = fit(network, lambda rng: [torch.full((4, 1), next(inputs))], loss, recipe, job(tmp_path))
    assert trained.running_mean is not None
    assert trained.running_mean.item() == pytest.approx((0 + 3) / 2)


def test_history_has_a_row_an_epoch_and_the_rate_decays(tmp_path: Path) -> None:
    watched = Watched()
    watched.fit(FitRecipe(epochs=4, learning_rate=0.2, decay=0.5), tmp_path)
    with (tmp_path / "toy.history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "learning_rate", "seconds"]
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.2, 0.1, 0.05, 0.025])
    for epoch, row in enumerate(rows):
        assert float(row["loss"]) == pytest.approx(sum(watched.losses[3 * epoch : 3 * epoch + 3]) / 3)


def test_the_rate_that_decays_is_the_one_used(tmp_path: Path) -> None:
    """Adam's steps are about as large as the learning rate; exactly so if the gradient's sign is constant."""
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
        lambda rng: [1.0],
        lambda net, batch: (slow + fast - 10).square().sum(),
        FitRecipe(epochs=1, learning_rate=0.01, weight_decay=0.0),
        job(tmp_path),
        parameters=groups,
    )
    assert slow.item() == pytest.approx(0.01, rel=1e-3)
    assert fast.item() == pytest.approx(0.1, rel=1e-3)


def test_it_learns(tmp_path: Path) -> None:
    trained = Watched().fit(FitRecipe(epochs=60, learning_rate=0.3, weight_decay=0.0), tmp_path)
    assert trained.weight.item() == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("best", [None, "figure"])
def test_without_a_checkpoint_the_same_is_trained_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, best: str | None
) -> None:
    caplog.set_level("INFO", logger="lympho")
    beside, nowhere = Noisy(tmp_path / "beside"), Noisy(tmp_path / "nowhere", kept=False)
    for folder in (beside.folder, nowhere.folder):
        folder.mkdir()
    expected = state(beside.run(best))
    assert {path.name for path in beside.folder.iterdir()} == {"toy.history.csv", "toy.progress", "toy.tensorboard"}
    assert "toy: epoch 8 of 8" in caplog.text
    caplog.clear()
    monkeypatch.chdir(nowhere.folder)
    before = set(tmp_path.rglob("*"))
    assert state(nowhere.run(best)) == expected  # bit by bit
    assert set(tmp_path.rglob("*")) == before
    assert nowhere.epochs_seen == 8
    assert not caplog.text
    assert state(nowhere.run(best)) == expected  # trained anew: there is nothing to resume from
    assert nowhere.epochs_seen == 16


def test_without_a_checkpoint_too_it_stops_at_a_loss_that_is_not_finite() -> None:
    watched = Watched(bad=(0, 1))
    with pytest.raises(TrainingError, match=r"toy: stopped, the loss is nan in epoch 0, batch 1"):
        fit(watched.network, watched.batches, watched.loss, FitRecipe(2, learning_rate=0.1), Job("toy", None, 3))


def weight_of(network: nn.Linear, epoch: int) -> dict[str, float]:
    return {"weight": network.weight.item(), "number": float(epoch)}


@pytest.mark.parametrize(("sign", "best_epoch"), [(1.0, 5), (-1.0, 0)])
def test_the_best_epoch_is_kept_where_one_is_asked_for(tmp_path: Path, sign: float, best_epoch: int) -> None:
    """The weight grows from epoch to epoch: it is highest in the last epoch, and its negative in the first."""
    watched = Watched()
    nn.init.constant_(watched.network.weight, -1.0)
    trained = fit(
        watched.network,
        watched.batches,
        watched.loss,
        FitRecipe(epochs=6, learning_rate=0.05),
        job(tmp_path, best="figure"),
        observe=lambda network, epoch: {"figure": sign * network.weight.item()},
    )
    after_epoch = [*watched.weights[1:], watched.network.weight.item()]
    assert after_epoch == sorted(after_epoch)
    assert trained.weight.item() == after_epoch[best_epoch]


class Killed(Exception):
    """Simulates a kill: nothing in the loop may catch it."""


@dataclass
class Noisy:
    """A training with every kind of random state: batches from numpy, dropout from torch, batch norm statistics."""

    folder: Path
    killed_at: tuple[int, int] | None = None  # epoch of this call and batch
    kept: bool = True  # whether its job has a checkpoint
    batches_seen: int = 0
    epochs_seen: int = 0

    def run(self, best: str | None = None) -> nn.Sequential:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        return fit(
            network,
            self.batches,
            lambda net, batch: (net(batch) - 1).square().mean(),
            FitRecipe(epochs=8, learning_rate=0.05, averaged_share=0.5),
            job(self.folder, best) if self.kept else replace(job(self.folder, best), checkpoint=None),
            parameters=[{"params": network[0].parameters(), "lr": 0.1}, {"params": network[1:].parameters()}],
            observe=lambda net, epoch: {"figure": float(net(torch.ones(1, 4)).item() * (-1) ** epoch)},
        )

    def batches(self, rng: np.random.Generator) -> Iterable[Tensor]:
        self.epochs_seen += 1
        for number in range(5):
            if self.killed_at == (self.epochs_seen - 1, number):
                raise Killed
            self.batches_seen += 1
            yield torch.from_numpy(rng.normal(size=(6, 4)).astype(np.float32))


def state(network: nn.Module) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in network.state_dict().items()}


def history(folder: Path) -> list[list[str]]:
    """All columns but the seconds."""
    with (folder / "toy.history.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


@pytest.mark.parametrize("best", [None, "figure"])
@pytest.mark.parametrize("epoch", [1, 3, 6])  # before, at the start of and within the averaged epochs
def test_killed_within_an_epoch_it_ends_as_if_nothing_had_happened(
    tmp_path: Path, epoch: int, best: str | None
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = state(Noisy(whole).run(best))
    killed = Noisy(cut, killed_at=(epoch, 2))
    with pytest.raises(Killed):
        killed.run(best)
    assert killed.batches_seen == 5 * epoch + 2
    resumed = Noisy(cut)
    assert state(resumed.run(best)) == expected  # bit by bit
    assert resumed.epochs_seen == 8 - epoch  # completed epochs are not repeated
    assert history(cut) == history(whole)


def kill_within_epoch_3(folder: Path) -> None:
    """Run in a separate process."""
    training = Noisy(folder)
    draw = training.batches

    def batches(rng: np.random.Generator) -> Iterable[Tensor]:
        for number, batch in enumerate(draw(rng)):
            if (training.epochs_seen, number) == (4, 2):
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    training.batches = batches  # type: ignore[method-assign]
    training.run()


def test_a_process_killed_outright_leaves_its_whole_epochs(tmp_path: Path) -> None:
    code = "import sys; from tests.train.test_fitting import *; kill_within_epoch_3(Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = Noisy(tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert state(resumed.run()) == state(Noisy(whole).run())
    assert resumed.epochs_seen == 8 - 3


def test_killed_before_its_result_was_saved_it_trains_nothing_again(tmp_path: Path) -> None:
    first = state(Noisy(tmp_path).run())
    again = Noisy(tmp_path)
    assert state(again.run()) == first
    assert again.epochs_seen == 0


def test_a_saved_network_ends_its_progress(tmp_path: Path) -> None:
    trained = Noisy(tmp_path).run()
    assert progress_path(tmp_path / "toy.safetensors").exists()
    save_network(tmp_path / "toy.safetensors", trained, FitRecipe(1, 0.1))
    assert not progress_path(tmp_path / "toy.safetensors").exists()


@pytest.mark.parametrize("damage", ["cut", "other network"])
def test_progress_that_cannot_be_gone_on_from_is_named(tmp_path: Path, damage: str) -> None:
    Noisy(tmp_path).run()
    path = progress_path(tmp_path / "toy.safetensors")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(
            CheckpointError, match=r"toy\.progress: cannot be resumed .*Delete it to train from scratch"
        ):
            Noisy(tmp_path).run()
    else:
        with pytest.raises(CheckpointError, match=r"toy\.progress: cannot be resumed"):
            Watched().fit(FitRecipe(epochs=8, learning_rate=0.1), tmp_path)


def test_tensorboard_gets_each_epoch_once_whatever_was_cut(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Noisy(tmp_path, killed_at=(3, 2)).run()
    Noisy(tmp_path).run()
    events = EventAccumulator(str(tmp_path / "toy.tensorboard"))
    events.Reload()
    with (tmp_path / "toy.history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("loss", "learning_rate", "figure"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == list(range(8))
        assert [scalar.value for scalar in scalars] == pytest.approx([float(row[name]) for row in rows])


def test_a_history_that_an_earlier_version_began_gets_the_new_columns(tmp_path: Path) -> None:
    """Interrupted after two epochs without curves, resumed with them."""
    watched = Watched()
    watched.bad = (2, 0)
    with pytest.raises(TrainingError):
        watched.fit(FitRecipe(epochs=4, learning_rate=0.1), tmp_path)
    again = Watched()
    again.weights = [0.0, 0.0]
    fit(
        again.network,
        again.batches,
        again.loss,
        FitRecipe(epochs=4, learning_rate=0.1),
        job(tmp_path),
        observe=lambda network, epoch: {"new": float(epoch)},
    )
    with (tmp_path / "toy.history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["new"] for row in rows] == ["", "", "2.0", "3.0"]
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]


def test_a_history_alone_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    watched = Watched()
    asked = Job("toy", None, 3, history=tmp_path / "toy.csv")
    fit(watched.network, watched.batches, watched.loss, FitRecipe(epochs=4, learning_rate=0.1), asked)
    assert [path.name for path in tmp_path.iterdir()] == ["toy.csv"]
    with (tmp_path / "toy.csv").open(newline="") as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == pytest.approx(
            [sum(watched.losses[3 * epoch : 3 * epoch + 3]) / 3 for epoch in range(4)]
        )


def test_observed_figures_join_the_history(tmp_path: Path) -> None:
    watched = Watched()
    recipe = FitRecipe(epochs=3, learning_rate=0.1)
    fit(watched.network, watched.batches, watched.loss, recipe, job(tmp_path), observe=weight_of)
    with (tmp_path / "toy.history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["number"]) for row in rows] == [0, 1, 2]
    assert [float(row["weight"]) for row in rows] == [*watched.weights[1:], watched.network.weight.item()]
