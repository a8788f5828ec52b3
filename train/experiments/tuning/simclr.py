"""SimCLR that starts from the ImageNet weights: no labels, and no picture but the training patients'."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from train.core.arrays import Indices
from train.core.batch_norm import recalibrate
from train.core.fitting import Job, fit, mixed_precision
from train.core.seeds import seeded
from train.data.augment import random_view
from train.data.bags import CROP_SIZE, Bags, in_batches
from train.experiments.tuning.recipe import Clock, SimclrRecipe
from train.members.embedding import FEATURES, FrozenBackbone, Magnification, load_backbone, normalised
from train.members.mixture import NORM_BATCH, norm_sample
from train.members.scan.backbone import Projection
from train.members.scan.simclr import nt_xent, shuffled_batches


class Contrasted(nn.Module):
    """Backbone and projection head; the head is discarded afterwards."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.backbone = load_backbone(Magnification(CROP_SIZE, input_size))
        self.projection = Projection(FEATURES)


def train_simclr(
    bags: Bags, patients: Indices, recipe: SimclrRecipe, job: Job, device: torch.device, clock: Clock
) -> FrozenBackbone:
    """Train on the given patients; the result has averaged weights and recomputed batch norm statistics."""
    seeded(job.seed, job.name)
    network = Contrasted(recipe.input_size).to(device).to(memory_format=torch.channels_last)
    crops = bags.of(patients).crops

    def loss(net: Contrasted, images: Tensor) -> Tensor:
        pixels = normalised(images)
        both = torch.cat([random_view(pixels, recipe.views), random_view(pixels, recipe.views)])
        with mixed_precision(device):
            embedding = net.backbone.embed(both.contiguous(memory_format=torch.channels_last))
        first, second = net.projection(embedding.float()).chunk(2)
        return nt_xent(first, second, recipe.temperature)

    def epoch(rng: np.random.Generator) -> Iterator[Tensor]:
        clock.check()
        return shuffled_batches(crops, recipe.batch_images, rng, device)

    rate = recipe.fit.learning_rate
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):  # all batches have the same shape
        trained = fit(
            network,
            epoch,
            loss,
            recipe.fit,
            job,
            parameters=[
                {"params": list(network.backbone.parameters())},
                {"params": list(network.projection.parameters()), "lr": rate * recipe.head_rate},
            ],
        ).backbone
    sample = norm_sample(bags, patients, recipe.norm_images, job)
    recalibrate(trained, in_batches(bags.crops[sample].to(device), NORM_BATCH))
    return trained
