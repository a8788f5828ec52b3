"""Self-labelling: pictures whose class is beyond doubt teach the rest (Van Gansbeke et al. 2020, section 3.3)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.augment import ViewOptions, random_view, turn_and_flip
from train.fitting import fit, mixed_precision
from train.recipes import ScanRecipe
from train.scan.network import ScanNetwork
from train.scan.simclr import shuffled_batches


def train_self_labelling(
    network: ScanNetwork,
    crops: Tensor,
    recipe: ScanRecipe,
    rng: np.random.Generator,
    device: torch.device,
    history: Path,
) -> ScanNetwork:
    """Fine-tune a clustered network on its own confident classes; the network given is left as it is."""
    student = network.with_head(0).to(device)
    views = ViewOptions()

    def loss(net: ScanNetwork, images: Tensor) -> Tensor:
        probability, classes = confident_classes(net, turn_and_flip(images))
        sure = probability > recipe.confidence
        with mixed_precision(device):
            embedding = net.backbone.embed(random_view(net.backbone.normalise(images), views))
        logits = net.heads[0](embedding.float())
        return balanced_cross_entropy(logits, classes, sure)

    return fit(
        student,
        lambda epoch: shuffled_batches(crops, recipe.batch_images, rng, device),
        loss,
        recipe.self_labelling,
        "scan self-labelling",
        history,
    )


def confident_classes(network: ScanNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """Each picture's largest class probability and that class: (N,), (N,). The network's mode is left as it was."""
    training = network.training
    network.eval()
    with torch.no_grad():
        probabilities, _ = network(images)
    network.train(training)
    probability, classes = probabilities.max(1)
    return probability, classes


def balanced_cross_entropy(logits: Tensor, classes: Tensor, sure: Tensor) -> Tensor:
    """Cross-entropy over the sure pictures, each class weighing the same; 0 where none is sure: scalar.

    Args:
        logits: (N, C).
        classes: (N,) the class each picture gave itself.
        sure: (N,) bool.
    """
    if not sure.any():
        return logits.sum() * 0.0
    sizes = torch.bincount(classes[sure], minlength=logits.shape[1]).to(logits.dtype)
    weights = 1.0 / sizes.clamp_min(1.0)
    return functional.cross_entropy(logits[sure], classes[sure], weights)
