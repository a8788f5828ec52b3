"""The network's last blocks, fine-tuned on what the clinical values do not explain; the others stay ImageNet's.

As `train/evaluation/nested/finetuned.py`, but for what is trained. The blocks that are not trained stay in evaluation
mode, so that their batch norm does not follow the cells either.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from train.core.arrays import Indices
from train.core.batch_norm import recalibrate
from train.core.fitting import Job, fit, mixed_precision
from train.data.augment import random_view
from train.data.bags import Bags, in_batches
from train.evaluation.nested.finetuned import FineTuned, untrained
from train.experiments.tuning.recipe import LAST_BLOCKS, Clock
from train.members.embedding import EfficientNetLite0, normalised
from train.members.mixture import NORM_BATCH, MoeBatch, bag_batches, norm_sample
from train.members.mixture_network import bag_means
from train.members.recipes import FineTunedRecipe


def train_last_blocks(
    bags: Bags, patients: Indices, recipe: FineTunedRecipe, job: Job, device: torch.device, clock: Clock
) -> FineTuned:
    """Train on the given patients; the last blocks have averaged weights and recomputed batch norm statistics."""
    network = untrained(bags, patients, recipe, job).to(device).to(memory_format=torch.channels_last)

    def first_maps(net: FineTuned, pixels: Tensor) -> Tensor:
        """What the blocks that are not trained make of normalised pixels."""
        first = halves(net.pictures.embedding)[0].eval()
        with torch.no_grad():
            shown = net.pictures.resized(pixels).contiguous(memory_format=torch.channels_last)
            return first(shown)  # type: ignore[no-any-return]

    def loss(net: FineTuned, batch: MoeBatch) -> Tensor:
        last = halves(net.pictures.embedding)[1]
        with mixed_precision(device):
            features = last(first_maps(net, random_view(normalised(batch.images), recipe.views))).mean(dim=(2, 3))
        means = bag_means(features.float(), batch.patient, len(batch.labels))  # (P, 1280)
        return net.loss(means, batch.clinical, batch.labels, recipe.dropout)

    def epoch(rng: np.random.Generator) -> Iterator[MoeBatch]:
        clock.check()
        return bag_batches(bags, patients, recipe.batch_patients, recipe.images_per_patient, rng, device, turns=False)

    rate = recipe.fit.learning_rate
    trained = fit(
        network,
        epoch,
        loss,
        recipe.fit,
        job,
        parameters=[
            {"params": list(halves(network.pictures.embedding)[1].parameters())},
            {"params": list(network.pictures.linear.parameters()), "lr": rate * recipe.head_rate},
        ],
    )
    sample = norm_sample(bags, patients, recipe.norm_images, job)
    parts = in_batches(bags.crops[sample].to(device), NORM_BATCH)
    recalibrate(halves(trained.pictures.embedding)[1], (first_maps(trained, normalised(part)) for part in parts))
    return trained.eval()


def halves(embedding: EfficientNetLite0) -> tuple[nn.Sequential, nn.Sequential]:
    """The network's layers, shared with it: those that stay as they are, and the last LAST_BLOCKS with the head."""
    blocks = list(embedding.blocks)
    return nn.Sequential(embedding.stem, *blocks[:-LAST_BLOCKS]), nn.Sequential(*blocks[-LAST_BLOCKS:], embedding.head)
