"""SCAN's stages on frozen features (Van Gansbeke et al. 2020): neighbours, clustering, self-labelling, fusion.

The frozen backbone takes the place of the SimCLR pretext. Only linear layers are trained, in seconds. Pictures cannot
be augmented once their features are computed, so noise on the whitened components takes the place of augmentation.
No labels are used, and only the pictures given. Where SCAN collapses, k-means on the same embedding takes its place.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from infer.members.features import cell_classes
from train.core.arrays import Classes
from train.core.fitting import Job, TrainingError, fit
from train.core.seeds import seeded
from train.core.threads import on_one_thread
from train.members.cells.centroids import nearest_centroid
from train.members.cells.network import CellDimensions, CellNetwork, Heads
from train.members.recipes import CellRecipe
from train.members.scan.clustering import scan_loss
from train.members.scan.fusion import fuse
from train.members.scan.measures import Collapse, class_sizes
from train.members.scan.neighbours import nearest
from train.members.scan.self_labelling import balanced_cross_entropy, sure_pictures
from train.members.scan.simclr import shuffled_batches

LOG = logging.getLogger("lympho")
CPU = torch.device("cpu")
Pictures = npt.NDArray[np.float32]  # (N, 1280) features of every picture


@dataclass(frozen=True)
class CellClasses:
    """A trained classification of cells."""

    network: CellNetwork
    fusion: npt.NDArray[np.int64]  # (20,) the class after fusion of each class
    collapsed: str = ""  # why k-means stands in SCAN's place; empty where it does not

    def of(self, pictures: Pictures) -> Classes:
        """The class after fusion of each picture: (N, 1280) -> (N,)."""
        with torch.inference_mode():
            probabilities = self.network(torch.from_numpy(pictures))[0].numpy()
        return cell_classes(probabilities, self.fusion)[0]


@on_one_thread
def train_cells(pictures: Pictures, owner: Classes, recipe: CellRecipe, seed: int) -> CellClasses:
    """Train on some patients' pictures: by SCAN, or by k-means where SCAN collapses.

    Args:
        pictures: (N, 1280) features.
        owner: (N,) the patient of each picture; neighbours never come from the same patient, whose stain they share.
        recipe: hyperparameters; fewer neighbours are taken where there are not so many pictures of other patients.
        seed: random seed.

    Raises:
        Collapse: k-means, too, finds no two classes, or the pictures do not differ.
    """
    seeded(seed, "cells")
    network = _projected(pictures, recipe)
    embedding = network.embed(pictures)
    try:
        return _with_head(network, _by_scan(embedding, owner, recipe, seed), embedding, recipe)
    except TrainingError as error:
        LOG.warning("%s: k-means takes SCAN's place", error)
        collapsed = str(error)
    return _with_head(network, nearest_centroid(embedding, recipe.clusters, seed), embedding, recipe, collapsed)


def _by_scan(embedding: Tensor, owner: Classes, recipe: CellRecipe, seed: int) -> nn.Module:
    _, patient = np.unique(owner, return_inverse=True)
    strangers = len(patient) - int(np.bincount(patient).max())  # pictures of other patients, at least
    if not strangers:
        raise TrainingError("cells: all pictures are of one patient, so none has a neighbour")
    neighbours = nearest(embedding, min(recipe.neighbours, strangers), torch.from_numpy(patient))
    return _self_labelled(_clustered(embedding, neighbours, recipe, seed), embedding, recipe, seed)


def _with_head(
    network: CellNetwork, head: nn.Module, embedding: Tensor, recipe: CellRecipe, collapsed: str = ""
) -> CellClasses:
    """The network with a head, and the fusion of its classes.

    Raises:
        Collapse: all pictures are in one class after it.
    """
    network.head.load_state_dict(head.state_dict())
    network.eval()
    with torch.inference_mode():
        probabilities = network.head(embedding).softmax(1).numpy()
    fusion = fuse(probabilities, recipe.fused)
    if len(np.unique(cell_classes(probabilities, fusion)[0])) < 2:
        raise Collapse("cells: all pictures are in the same class")
    return CellClasses(network, fusion, collapsed)


def _projected(pictures: Pictures, recipe: CellRecipe) -> CellNetwork:
    """A network with its projection fitted: whitened principal components of these pictures.

    Raises:
        Collapse: the pictures do not differ.
    """
    if not np.ptp(pictures, axis=0).any():
        raise Collapse("cells: all pictures look the same")
    number = min(recipe.components, *pictures.shape)
    found = PCA(number, svd_solver="covariance_eigh").fit(pictures.astype(np.float64))
    # Not scaled before (train/members/linear.py says why); and where the spread is only rounding, not looked at.
    variance = found.explained_variance_
    spread = np.where(variance > 1e-6 * variance[0], np.sqrt(np.maximum(variance, 0)), np.inf)
    weights = found.components_ / spread[:, None]
    network = CellNetwork(CellDimensions(number, recipe.clusters, pictures.shape[1]))
    network.set_projection(weights, -weights @ found.mean_)
    network.projection.requires_grad_(False)
    return network


def _clustered(embedding: Tensor, neighbours: Tensor, recipe: CellRecipe, seed: int) -> nn.Linear:
    """The best head: that with the lowest loss, unless one class has most pictures."""
    size = embedding.shape[1]
    heads = Heads([nn.Linear(size, recipe.clusters) for _ in range(recipe.heads)])

    def batches(rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in shuffled_batches(torch.arange(len(embedding)), recipe.batch_images, rng, CPU):
            drawn = torch.from_numpy(rng.integers(0, neighbours.shape[1], len(indices)))
            yield embedding[indices], embedding[neighbours[indices, drawn]]

    def loss(net: Heads, batch: tuple[Tensor, Tensor]) -> Tensor:
        anchors, others = net(_noisy(torch.cat(batch), recipe)).softmax(-1).chunk(2, dim=1)  # (heads, N, C) each
        return scan_loss(anchors, others, recipe.entropy_weight).sum()

    trained = fit(heads, batches, loss, recipe.clustering, Job("cells clustering", None, seed))
    with torch.inference_mode():
        found = trained(embedding).softmax(-1)
        losses = scan_loss(found, found[:, neighbours[:, 0]], recipe.entropy_weight)
    shares = class_sizes(found).max(axis=1) / len(embedding)  # (heads,)
    for head in losses.argsort().tolist():
        if shares[head] <= recipe.largest_class:
            kept: nn.Linear = trained.each[head]
            return kept
    raise Collapse(
        f"cells: SCAN's clustering collapsed, in every head one class contains at least {shares.min():.0%} of the "
        "pictures"
    )


def _self_labelled(head: nn.Linear, embedding: Tensor, recipe: CellRecipe, seed: int) -> nn.Module:
    """The head trained on its own confident pictures; as it was, if a class is lost by that."""
    with torch.inference_mode():
        before = head(embedding).softmax(1)
    classes = before.argmax(1).clone()
    sure = torch.from_numpy(np.flatnonzero(sure_pictures(before, recipe.confidence, recipe.trusted_share)))

    def batches(rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in shuffled_batches(sure, recipe.batch_images, rng, CPU):
            yield embedding[indices], classes[indices]

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return balanced_cross_entropy(net(_noisy(batch[0], recipe)), batch[1])

    start = nn.Linear(head.in_features, head.out_features)
    start.load_state_dict(head.state_dict())
    trained = fit(start, batches, loss, recipe.self_labelling, Job("cells self-labelling", None, seed))
    with torch.inference_mode():
        after = trained(embedding).argmax(1)
    lost = set(classes.tolist()) - set(after.tolist())
    if lost:
        LOG.info("cells: self-labelling lost %d classes, the clustering is used", len(lost))
    return head if lost else trained


def _noisy(embedding: Tensor, recipe: CellRecipe) -> Tensor:
    return embedding + recipe.noise * torch.randn_like(embedding)
