"""Saves and loads networks: safetensors (no pickle), dimensions stored with the weights, written atomically."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from infer.errors import LymphoError
from train.core.files import written_whole


class CheckpointError(LymphoError):
    """A checkpoint that cannot be read."""


def save_network(path: Path, network: nn.Module, dimensions: Any) -> None:
    """Write a network's weights and dimensions, then delete the progress file of its training.

    Args:
        dimensions: the dataclass from which the network can be rebuilt.
    """
    metadata = {"dimensions": json.dumps(dataclasses.asdict(dimensions))}
    with written_whole(path) as part:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, part, metadata)
    progress_path(path).unlink(missing_ok=True)


def progress_path(checkpoint: Path) -> Path:
    """Where the training of a checkpoint keeps its state between epochs."""
    return checkpoint.with_suffix(".progress")


def load_dimensions(path: Path) -> dict[str, Any]:
    """Read the dimensions that a checkpoint was saved with. Sequences are returned as tuples.

    Raises:
        CheckpointError: the file is missing or is not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            stored = json.loads(file.metadata()["dimensions"])
    except Exception as error:  # for damaged files safetensors raises undocumented errors of its own
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({error}). Train this part again") from error
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}


def load_weights(path: Path, network: nn.Module) -> None:
    """Load weights into a network built from the checkpoint's dimensions, and set it to evaluation mode."""
    network.load_state_dict(load_file(path))
    network.eval()
