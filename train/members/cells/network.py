"""The network: a fixed projection of the backbone's features, and a linear layer for the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from train.core.arrays import Floats
from train.core.checkpoint import load_dimensions, load_weights
from train.members.embedding import FEATURES


@dataclass(frozen=True)
class CellDimensions:
    """Sizes needed to rebuild the network from a checkpoint."""

    components: int
    clusters: int
    features: int = FEATURES


class CellNetwork(nn.Module):
    """Features (N, 1280) -> probabilities of the classes before fusion (N, 20), embedding (N, 50)."""

    def __init__(self, dimensions: CellDimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.projection = nn.Linear(dimensions.features, dimensions.components)
        self.head = nn.Linear(dimensions.components, dimensions.clusters)

    def set_projection(self, weights: Floats, bias: Floats) -> None:
        """Set the projection: weights (50, 1280), bias (50,)."""
        with torch.no_grad():
            self.projection.weight.copy_(torch.from_numpy(weights))
            self.projection.bias.copy_(torch.from_numpy(bias))

    def embed(self, pictures: npt.NDArray[np.float32]) -> Tensor:
        """The embedding alone: (N, 1280) -> (N, 50)."""
        with torch.inference_mode():
            return self.projection(torch.from_numpy(pictures)).clone()  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.projection(features)
        return self.head(embedding).softmax(1), embedding


class Heads(nn.Module):
    """Several heads in training, of which one is kept: embedding (N, 50) -> logits (heads, N, 20)."""

    def __init__(self, each: Sequence[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(each)

    def forward(self, embedding: Tensor) -> Tensor:
        return torch.stack([head(embedding) for head in self.each])


def load_cells(path: Path) -> CellNetwork:
    """Load the network from a checkpoint, in evaluation mode."""
    network = CellNetwork(CellDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network
