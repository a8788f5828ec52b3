"""SCAN's clustering: neighbours agree on a class, classes stay balanced (Van Gansbeke et al. 2020, equation 2)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from train.augment import ViewOptions, random_view
from train.fitting import fit, mixed_precision
from train.recipes import ScanRecipe
from train.scan.backbone import Backbone
from train.scan.network import ScanDimensions, ScanNetwork, embed_all
from train.scan.simclr import shuffled_batches


def scan_loss(anchors: Tensor, neighbours: Tensor, entropy_weight: float) -> Tensor:
    """-mean log <p, p'> - weight x entropy of the mean p: over the last two axes, (..., N, C) -> (...,).

    Args:
        anchors: class probabilities of pictures.
        neighbours: of one neighbour each.
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
    rng: np.random.Generator,
    device: torch.device,
    history: Path,
) -> ScanNetwork:
    """Train several heads on the pretext's backbone and return the network with the best one.

    Args:
        crops: (N, 112, 112, 3) uint8.
        neighbours: (N, k) indices.
    """
    network = ScanNetwork(ScanDimensions(backbone.dimensions.widths, recipe.clusters, recipe.heads))
    network.backbone.load_state_dict(backbone.state_dict())
    network.to(device)
    views = ViewOptions()

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in shuffled_batches(torch.arange(len(crops)), recipe.batch_images, rng, torch.device("cpu")):
            drawn = torch.from_numpy(rng.integers(0, neighbours.shape[1], len(indices)))
            yield crops[indices].to(device), crops[neighbours[indices, drawn]].to(device)

    def loss(net: ScanNetwork, batch: tuple[Tensor, Tensor]) -> Tensor:
        images = torch.cat(batch)
        with mixed_precision(device):
            embedding = net.backbone.embed(random_view(net.backbone.normalise(images), views))
        anchors, others = net.head_logits(embedding.float()).softmax(-1).chunk(2, dim=1)  # (heads, N, C) each
        return scan_loss(anchors, others, recipe.entropy_weight).sum()

    trained = fit(network, batches, loss, recipe.clustering, "scan clustering", history)
    return trained.with_head(best_head(trained, crops, neighbours, recipe.entropy_weight, device))


def best_head(
    network: ScanNetwork, crops: Tensor, neighbours: Tensor, entropy_weight: float, device: torch.device
) -> int:
    """The head with the lowest loss over all pictures as they are and their nearest neighbours."""
    embedding = embed_all(network.backbone, crops, device)
    with torch.inference_mode():
        probabilities = network.cpu().head_logits(embedding).softmax(-1)  # (heads, N, C)
        losses = scan_loss(probabilities, probabilities[:, neighbours[:, 0]], entropy_weight)
    return int(losses.argmin())
