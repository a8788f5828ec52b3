"""SCAN's clustering: neighbours share a class, classes stay balanced (Van Gansbeke et al. 2020, equation 2)."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from train.core.fitting import Job, fit, mixed_precision
from train.core.seeds import seeded
from train.data.augment import random_view
from train.members.recipes import ScanRecipe
from train.members.scan.backbone import Backbone
from train.members.scan.network import ScanNetwork, embed_all, scan_dimensions
from train.members.scan.simclr import shuffled_batches


def scan_loss(anchors: Tensor, neighbours: Tensor, entropy_weight: float) -> Tensor:
    """-mean log <p, p'> - weight x entropy of the mean p: over the last two axes, (..., N, C) -> (...,).

    Args:
        anchors: class probabilities of the pictures.
        neighbours: class probabilities of one neighbour of each picture.
        entropy_weight: weight of the entropy term.
    """
    agreement = (anchors * neighbours).sum(-1).clamp_min(1e-8).log().mean(-1)
    share = anchors.mean(-2).clamp_min(1e-8)
    entropy = -(share * share.log()).sum(-1)
    return -agreement - entropy_weight * entropy


def train_clustering(
    backbone: Backbone,
    crops: Tensor,
    neighbours: Tensor,
    recipe: ScanRecipe,
    job: Job,
    device: torch.device,
    observe: Callable[[ScanNetwork, int], dict[str, float]] | None = None,
) -> ScanNetwork:
    """Train several heads on the pretext's backbone and return the network with all heads.

    Args:
        backbone: from the pretext; it is copied.
        crops: (N, 112, 112, 3) uint8.
        neighbours: (N, k) indices of each picture's neighbours.
        recipe: hyperparameters.
        job: name, checkpoint and seed of the training.
        device: device to train on.
        observe: network, epoch number -> metrics after each epoch.
    """
    seeded(job.seed, job.name)
    network = ScanNetwork(scan_dimensions(backbone.dimensions, recipe.clusters, recipe.heads))
    network.backbone.load_state_dict(backbone.state_dict())
    network.to(device)

    def batches(rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in shuffled_batches(torch.arange(len(crops)), recipe.batch_images, rng, torch.device("cpu")):
            drawn = torch.from_numpy(rng.integers(0, neighbours.shape[1], len(indices)))
            yield crops[indices].to(device), crops[neighbours[indices, drawn]].to(device)

    def loss(net: ScanNetwork, batch: tuple[Tensor, Tensor]) -> Tensor:
        images = torch.cat(batch)
        with mixed_precision(device):
            embedding = net.backbone.embed(random_view(net.backbone.normalise(images), recipe.views))
        anchors, others = net.head_logits(embedding.float()).softmax(-1).chunk(2, dim=1)  # (heads, N, C) each
        return scan_loss(anchors, others, recipe.entropy_weight).sum()

    return fit(network, batches, loss, recipe.clustering, job, observe=observe)


def head_losses(
    network: ScanNetwork, crops: Tensor, neighbours: Tensor, entropy_weight: float, device: torch.device
) -> Tensor:
    """Loss of each head over all pictures, without augmentation, and their nearest neighbours: (heads,)."""
    embedding = embed_all(network.backbone, crops, device)
    with torch.inference_mode():
        probabilities = network.cpu().head_logits(embedding).softmax(-1)  # (heads, N, C)
        return scan_loss(probabilities, probabilities[:, neighbours[:, 0]], entropy_weight)
