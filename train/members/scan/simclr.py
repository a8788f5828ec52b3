"""SimCLR: an embedding in which two views of the same picture are close (Chen et al. 2020). Uses no labels."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.core.fitting import Job, fit, mixed_precision
from train.core.seeds import seeded
from train.data.augment import random_view
from train.members.backbones import BackboneDimensions
from train.members.recipes import ScanRecipe
from train.members.scan.backbone import Backbone, Projection


class PretextNetwork(nn.Module):
    """Backbone and projection head; the head is discarded after the pretext."""

    def __init__(self, dimensions: BackboneDimensions) -> None:
        super().__init__()
        self.backbone = Backbone(dimensions)
        self.projection = Projection(dimensions.widths[-1])


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The normalised temperature-scaled cross-entropy of Chen et al., equation 1, averaged over all 2 N views.

    Args:
        first: (N, D) unit vectors of one view of N pictures.
        second: (N, D) unit vectors of the other view.
        temperature: divides the similarities.
    """
    number = len(first)
    views = torch.cat([first, second])  # (2 N, D)
    similarity = views @ views.T / temperature  # (2 N, 2 N)
    similarity = similarity.masked_fill(torch.eye(2 * number, dtype=torch.bool, device=views.device), -torch.inf)
    partner = torch.arange(2 * number, device=views.device).roll(number)
    return functional.cross_entropy(similarity, partner)


def train_pretext(
    crops: Tensor, dimensions: BackboneDimensions, recipe: ScanRecipe, job: Job, device: torch.device
) -> Backbone:
    """Train a backbone on pictures (N, 112, 112, 3), without labels."""
    seeded(job.seed, job.name)
    network = PretextNetwork(dimensions).to(device)

    def loss(net: PretextNetwork, images: Tensor) -> Tensor:
        pixels = net.backbone.normalise(images)
        both = torch.cat([random_view(pixels, recipe.views), random_view(pixels, recipe.views)])
        with mixed_precision(device):
            embedding = net.backbone.embed(both)
        first, second = net.projection(embedding.float()).chunk(2)
        return nt_xent(first, second, recipe.temperature)

    trained = fit(
        network,
        lambda rng: shuffled_batches(crops, recipe.batch_images, rng, device),
        loss,
        recipe.pretext,
        job,
    )
    return trained.backbone


def shuffled_batches(crops: Tensor, size: int, rng: np.random.Generator, device: torch.device) -> Iterator[Tensor]:
    """All pictures once in random order. A short last batch is dropped: its few negatives would weigh too much."""
    order = torch.from_numpy(rng.permutation(len(crops)))
    size = min(size, len(crops))
    for start in range(0, len(crops) - size + 1, size):
        yield crops[order[start : start + size]].to(device)
