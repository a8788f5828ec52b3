"""Training state on disk after each epoch, from which an interrupted run is resumed.

One safetensors file beside the future checkpoint, replaced atomically after each epoch, so that a kill at any time
leaves a valid file. No random state is stored: each epoch has its own generator (train/core/fitting.py).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from train.core.checkpoint import CheckpointError, progress_path
from train.core.files import written_whole

History = list[dict[str, float]]
Weights = dict[str, Tensor]


@dataclass
class TrainingState:
    """Everything that changes from epoch to epoch."""

    network: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.Optimizer
    history: History  # one row per epoch
    best: Weights  # weights of the best epoch so far; empty if no best epoch is selected

    def save(self, checkpoint: Path) -> None:
        """Write the state atomically."""
        path = progress_path(checkpoint)
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"averaged/{name}": value for name, value in self.averaged.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": value for name, value in values.items()}
        # safetensors cannot store tensors that share memory, and the best epoch may be the current one.
        apart = {name: value.clone().contiguous() for name, value in tensors.items()}
        with written_whole(path) as part:
            save_file(apart, part, self._metadata())

    def load(self, checkpoint: Path) -> None:
        """Load the state of an interrupted run, if there is one.

        Raises:
            CheckpointError: the file is damaged or belongs to another network.
        """
        path = progress_path(checkpoint)
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as file:
                self.history = json.loads(file.metadata()["history"])
            parts = _by_prefix(load_file(path))
            self.network.load_state_dict(parts["network"])
            self.averaged.load_state_dict(parts["averaged"])
            self.best = parts.get("best", {})
            self._load_optimizer(parts.get("optimizer", {}))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: cannot be resumed ({error}). Delete it to train from scratch") from error

    def _metadata(self) -> dict[str, str]:
        return {"history": json.dumps(self.history)}

    def _load_optimizer(self, tensors: Weights) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
        groups: list[dict[str, Any]] = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _by_prefix(tensors: Weights) -> dict[str, Weights]:
    parts: dict[str, Weights] = {}
    for key, value in tensors.items():
        prefix, name = key.split("/", 1)
        parts.setdefault(prefix, {})[name] = value
    return parts
