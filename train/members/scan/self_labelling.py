"""Self-labelling: the network is fine-tuned on its confident pictures (Van Gansbeke et al. 2020, section 3.3).

In the paper the network in training provides the labels, wherever it exceeds one threshold. On the public cohort this
reduced twenty classes to seven or fewer: only a few classes have confident pictures, only they provide labels, and they
absorb the others within an epoch. So here the clustered network provides the labels, once, and every class is trained
on its own most confident pictures.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from train.core.fitting import Job, fit, mixed_precision
from train.core.seeds import seeded
from train.data.augment import random_view
from train.data.bags import in_batches
from train.members.recipes import ScanRecipe
from train.members.scan.network import ScanNetwork
from train.members.scan.simclr import shuffled_batches


def train_self_labelling(
    network: ScanNetwork,
    crops: Tensor,
    recipe: ScanRecipe,
    job: Job,
    device: torch.device,
    observe: Callable[[ScanNetwork, int], dict[str, float]] | None = None,
) -> ScanNetwork:
    """Fine-tune a copy of a clustered network on its own confident classes.

    Batch norm keeps the statistics of the clustering: updated on strongly augmented views they would no longer fit the
    plain pictures on which they are used.
    """
    seeded(job.seed, job.name)
    student = network.with_head(0).to(device)
    probabilities = _probabilities(student, crops, device)
    classes = probabilities.argmax(1)  # (N,)
    sure = torch.from_numpy(np.flatnonzero(sure_pictures(probabilities, recipe.confidence, recipe.trusted_share)))

    def batches(rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in shuffled_batches(sure, recipe.batch_images, rng, torch.device("cpu")):
            yield crops[indices].to(device), classes[indices].to(device)

    def loss(net: ScanNetwork, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        net.eval()
        with mixed_precision(device):
            embedding = net.backbone.embed(random_view(net.backbone.normalise(images), recipe.views))
        return balanced_cross_entropy(net.heads[0](embedding.float()), labels)

    return fit(student, batches, loss, recipe.self_labelling, job, observe=observe)


def sure_pictures(probabilities: Tensor, confidence: float, trusted_share: float) -> npt.NDArray[np.bool_]:
    """Pictures used as labels: above `confidence`, or among the `trusted_share` most confident of their class.

    Args:
        probabilities: (N, C) class probabilities of all pictures.
        confidence: probability above which a picture is always used.
        trusted_share: share of each class's pictures that is always used.

    Returns:
        (N,) bool.
    """
    probability, classes = probabilities.max(1)
    thresholds = torch.full((probabilities.shape[1],), confidence, dtype=probability.dtype)
    for index in range(probabilities.shape[1]):
        own = probability[classes == index]
        if len(own):
            thresholds[index] = torch.minimum(own.quantile(1 - trusted_share), thresholds[index])
    sure: npt.NDArray[np.bool_] = (probability >= thresholds[classes]).numpy()
    return sure


def balanced_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy in which each class of a batch has the same weight: (N, C), (N,) -> scalar."""
    sizes = torch.bincount(classes, minlength=logits.shape[1]).to(logits.dtype)
    return functional.cross_entropy(logits, classes, 1.0 / sizes.clamp_min(1.0))


def _probabilities(network: ScanNetwork, crops: Tensor, device: torch.device) -> Tensor:
    """Class probabilities of the first head, in evaluation mode: (N, C) on the CPU."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(images.to(device))[0].cpu() for images in in_batches(crops)])
