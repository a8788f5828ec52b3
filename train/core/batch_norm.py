"""Recomputes batch norm statistics for fixed weights: after an epoch, and after weights were averaged.

Running averages lag behind changing weights and come from batches of few patients: validation balanced accuracy swung
by a quarter from one epoch to the next. So the statistics are recomputed from training pictures (Wu & Johnson 2021,
"Rethinking Batch in BatchNorm", section 3; for averaged weights Izmailov et al. 2018, section 3.2).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set all running means and variances to their averages over some batches of pictures, in place.

    The weights do not change. Afterwards the network is in evaluation mode.

    Args:
        network: takes a batch (N, 112, 112, 3) uint8.
        batches: all of the same size, so that each has equal weight.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch then takes the plain average over all batches
    network.train()
    with torch.no_grad():
        for images in batches:
            network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()
