"""How far a patient's mean features lie from the training patients': a network without a label, fitted on export.

Principal components of the training patients' mean features (P, 1280). Within them the distance is Mahalanobis's,
outside them it is what they leave unexplained. The features are not standardised: those that are nearly 0 in all
training patients would outweigh the others, and one patient who has them would set the limit for all.
"""

import numpy as np
import torch
from torch import Tensor, nn

from train.core.arrays import Floats
from train.core.threads import on_one_thread

COMPONENTS = 30  # as many as the ImageNet member looks at
FOLDS = 10
_SMALLEST = 1e-6  # standard deviation along a component


class FeatureDistance(nn.Module):
    """Mean features (P, D) -> distance within the principal components (P,) and outside them (P,).

    Both are root mean squares, within in standard deviations of the training patients, outside in units of a feature.
    """

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.directions: Tensor
        self.deviations: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("directions", torch.zeros(features, components))
        self.register_buffer("deviations", torch.ones(components))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        centred = features - self.mean
        along = centred @ self.directions
        rest = centred - along @ self.directions.T
        return _root_mean_square(along / self.deviations), _root_mean_square(rest)


def _root_mean_square(values: Tensor) -> Tensor:
    return (values * values).mean(dim=1).sqrt()


@on_one_thread
def fit_distance(means: Floats, components: int = COMPONENTS) -> FeatureDistance:
    """Fit on patients' mean features (P, D), P above 2.

    Args:
        components: fewer are taken if there are not three patients for each.
    """
    patients, features = means.shape
    mean = means.mean(axis=0)
    _, singular, directions = np.linalg.svd(means - mean, full_matrices=False)
    kept = max(1, min(components, patients // 3))
    network = FeatureDistance(features, kept)
    network.mean.copy_(torch.from_numpy(mean))
    network.directions.copy_(torch.from_numpy(directions[:kept].T.copy()))
    network.deviations.copy_(torch.from_numpy(np.maximum(singular[:kept] / np.sqrt(patients - 1), _SMALLEST)))
    return network.eval()


def held_out_distances(means: Floats, folds: int = FOLDS, seed: int = 0) -> tuple[Floats, Floats]:
    """The distances (P,) and (P,) of each patient from the others: it is not among those that they are fitted on.

    A patient's distance from a fit that has seen it would be too small by far: 30 components of 130 patients.
    """
    order = np.random.default_rng(seed).permutation(len(means))
    within, outside = np.zeros(len(means)), np.zeros(len(means))
    for held_out in np.array_split(order, min(folds, len(means))):
        others = np.setdiff1d(order, held_out)
        within[held_out], outside[held_out] = distances(fit_distance(means[others]), means[held_out])
    return within, outside


def distances(network: FeatureDistance, means: Floats) -> tuple[Floats, Floats]:
    """What a network says of patients' mean features (P, D)."""
    with torch.inference_mode():
        within, outside = network(torch.from_numpy(means.astype(np.float32)))
    return within.double().numpy(), outside.double().numpy()
