"""The training loop of all networks: Adam, learning rate decay, averaged weights, stop at the first non-finite loss.

It can be killed at any time: the next call resumes after the last complete epoch and ends with the same weights as an
uninterrupted run, because every epoch has its own random generator.
"""

import csv
import io
import logging
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn
from torch.utils.tensorboard import SummaryWriter

from infer.errors import LymphoError
from train.core.files import write_text
from train.core.seeds import seeded
from train.core.training_state import History, TrainingState
from train.progress.report import is_followed, steps

LOG = logging.getLogger("lympho")

Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class FitRecipe:
    """Hyperparameters of one training."""

    epochs: int
    learning_rate: float
    decay: float = 0.975  # the learning rate is multiplied by this after each epoch (report, section 3.2)
    weight_decay: float = 5e-4  # report
    averaged_share: float = 0.25  # weights are averaged over this last fraction of the epochs; no epoch is selected


class TrainingError(LymphoError):
    """A training that cannot continue."""


@dataclass(frozen=True)
class Job:
    """What is trained, and where its files are written."""

    name: str  # for messages, and part of the random seed
    # History, progress and TensorBoard events are written beside it; the caller writes the checkpoint. None: a training
    # of seconds, of which nothing is written.
    checkpoint: Path | None
    seed: int
    history: Path | None = None  # of a training without a checkpoint: where its history is written all the same
    best: str | None = None  # observed metric: the epoch with its highest value is kept instead of averaged weights


def fit(
    network: Network,
    batches: Callable[[np.random.Generator], Iterable[Batch]],
    loss: Callable[[Network, Batch], Tensor],
    recipe: FitRecipe,
    job: Job,
    *,
    parameters: list[dict[str, object]] | None = None,
    observe: Callable[[Network, int], dict[str, float]] | None = None,
) -> Network:
    """Train a network in place and return a copy with the weights averaged over the last epochs, in evaluation mode.

    Args:
        batches: random generator -> the batches of one epoch.
        loss: network, batch -> scalar loss.
        parameters: parameter groups with their own learning rates; by default one group with all parameters.
        observe: network in evaluation mode, epoch number -> metrics, which are added to the history.

    Raises:
        TrainingError: the loss is not finite; the message names epoch and batch.
        CheckpointError: the progress file of an interrupted run cannot be resumed.
    """
    optimizer = torch.optim.Adam(
        parameters or [{"params": list(network.parameters())}],
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    # Averages tensor by tensor: on a GPU torch's fused average cannot divide batch norm's integer counters.
    average = get_swa_avg_fn()  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, avg_fn=average, use_buffers=True)
    first_averaged = recipe.epochs - max(1, round(recipe.averaged_share * recipe.epochs))
    progress = TrainingState(network, averaged, optimizer, history=[], best={})
    if job.checkpoint:
        progress.load(job.checkpoint)
    with _Log(job, recipe.epochs, begun=len(progress.history)) as log:
        for epoch in _epochs(job, len(progress.history), recipe.epochs):
            start = time.monotonic()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * recipe.decay**epoch
            rng = seeded(job.seed, f"{job.name}, epoch {epoch}")
            mean_loss = _epoch(network, batches(rng), loss, optimizer, epoch, job)
            if epoch >= first_averaged:
                averaged.update_parameters(network)
            network.eval()
            row = {"epoch": epoch, "loss": mean_loss, "learning_rate": rates[0] * recipe.decay**epoch}
            row |= observe(network, epoch) if observe else {}
            row["seconds"] = round(time.monotonic() - start, 2)
            if job.best and all(row[job.best] > earlier[job.best] for earlier in progress.history):
                progress.best = {name: value.clone() for name, value in network.state_dict().items()}
            progress.history.append(row)
            log.epoch(progress.history)  # before saving progress, so that every completed epoch is in the history
            if job.checkpoint:
                progress.save(job.checkpoint)
    if job.best:
        averaged.module.load_state_dict(progress.best)
    averaged.module.eval()
    return cast("Network", averaged.module)


def _epochs(job: Job, begun: int, epochs: int) -> Iterable[int]:
    """What is left of the epochs. Those of a training of seconds are not reported: its caller's loop is enough."""
    left = range(begun, epochs)
    return steps(left, "epoch", before=begun) if job.checkpoint else left


def _epoch(
    network: Network,
    batches: Iterable[Batch],
    loss: Callable[[Network, Batch], Tensor],
    optimizer: torch.optim.Optimizer,
    epoch: int,
    job: Job,
) -> float:
    """Train for one epoch and return the mean loss."""
    network.train()
    total, count = 0.0, 0
    for number, batch in enumerate(batches):
        value = loss(network, batch)
        if not torch.isfinite(value):
            raise TrainingError(f"{job.name}: stopped, the loss is {value.item()} in epoch {epoch}, batch {number}")
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total, count = total + value.item(), count + 1
    return total / count


def mixed_precision(device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 convolutions where the hardware supports them natively, float32 elsewhere.

    On two cores with AVX-512 BF16 training is 1.8 times as fast. Emulated bfloat16 would be slower than float32.
    """
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


class _Log:
    """Logging of a training: a progress bar or log lines, the history as CSV, TensorBoard events.

    Where somebody says how far the whole training is (train/progress), there is one line a training, at its end.
    """

    def __init__(self, job: Job, epochs: int, begun: int) -> None:
        self._job, self._epochs = job, epochs
        self._events: SummaryWriter | None = None
        if job.checkpoint:
            folder = job.checkpoint.with_suffix(".tensorboard")
            self._events = SummaryWriter(str(folder), purge_step=begun)
        self._watched = sys.stderr.isatty() and not is_followed()
        hidden = not (self._watched and job.checkpoint)
        self._bar = click.progressbar(
            length=epochs - begun, label=job.name, file=sys.stderr, show_pos=True, hidden=hidden
        )
        if begun:
            LOG.info("%s: resuming after epoch %d of %d", job.name, begun, epochs)

    def __enter__(self) -> "_Log":
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._events:
            self._events.close()
        self._bar.__exit__(None, None, None)

    def epoch(self, history: History) -> None:
        if self._job.history and len(history) == self._epochs:
            _write_history(self._job.history, history)
        if not (self._job.checkpoint and self._events):
            return
        row = history[-1]
        _write_history(self._job.checkpoint.with_suffix(".history.csv"), history)
        for name in row.keys() - {"epoch"}:
            self._events.add_scalar(name, row[name], len(history) - 1)
        self._events.flush()
        self._bar.update(1)
        if is_followed():
            if len(history) == self._epochs:
                lost = (history[0]["loss"], row["loss"])
                LOG.info("%s: %d epochs, loss %.4f at first, %.4f at last", self._job.name, self._epochs, *lost)
        elif not self._watched:
            left = np.mean([past["seconds"] for past in history]) * (self._epochs - len(history))
            LOG.info(
                "%s: epoch %d of %d, loss %.4f, %.0f s left",
                self._job.name,
                len(history),
                self._epochs,
                row["loss"],
                left,
            )


def _write_history(path: Path, rows: History) -> None:
    text = io.StringIO(newline="")
    # A training that an earlier version began may have recorded less.
    columns = list(dict.fromkeys(name for row in reversed(rows) for name in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
