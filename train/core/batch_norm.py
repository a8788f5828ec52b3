"""Batch norm's statistics of fixed weights: what a network is scored with after an epoch, and after averaging.

The running averages lag behind weights that move, and are of batches of few patients: validation swung by a quarter
from one epoch to the next. So they are taken anew from training pictures (Wu & Johnson 2021, "Rethinking Batch in
BatchNorm", section 3; for averaged weights Izmailov et al. 2018, section 3.2).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set all running means and variances to their averages over some batches of pictures, in place.

    Weights are left as they are; the network is in evaluation mode afterwards.

    Args:
        network: takes a batch (N, 112, 112, 3) uint8.
        batches: of the same size, so that each counts alike.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average of all batches
    network.train()
    with torch.no_grad():
        for images in batches:
            network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()
