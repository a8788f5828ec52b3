"""Self-labelling: pictures whose class is beyond doubt teach the rest (Van Gansbeke et al. 2020, section 3.3).

The paper lets the network that is trained give the labels, those above one threshold. Here that fell from twenty
classes to seven and fewer, on the public cohort: few classes have sure pictures, they alone teach, and they swallow the
others within an epoch. So the clustered network gives the labels, once, and each class's own surest pictures teach it.
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
from train.data.crops import in_batches
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
    """Fine-tune a clustered network on its own confident classes; the network given is left as it is.

    Batch norm keeps the clustering's statistics: updated by strongly augmented views but used on plain pictures, they
    would drift apart.
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
    """Pictures that teach their class: above the confidence, or among that share of their class's surest: (N,) bool.

    Args:
        probabilities: (N, C) of all pictures.
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
    """Cross-entropy in which each class of a batch weighs the same: (N, C), (N,) -> scalar."""
    sizes = torch.bincount(classes, minlength=logits.shape[1]).to(logits.dtype)
    return functional.cross_entropy(logits, classes, 1.0 / sizes.clamp_min(1.0))


def _probabilities(network: ScanNetwork, crops: Tensor, device: torch.device) -> Tensor:
    """Of the first head, in evaluation mode: (N, C) on the CPU."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(images.to(device))[0].cpu() for images in in_batches(crops)])
