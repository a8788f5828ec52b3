"""k-means as a head: what stands in SCAN's place where its clustering collapsed.

The nearest centroid is a linear layer: |x - c|^2 / (2 s) differs between centroids by (2 c x - |c|^2) / (2 s). With s
the mean variance within the clusters, its softmax is the posterior of equal spherical Gaussians. So it fits the network
and its graph as they are.
"""

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

NEVER = -1e9  # logit of an output that stands for no class: its probability is 0 in single precision
STARTS = 3  # of k-means, the best is kept
SMALLEST_VARIANCE = 1e-2  # of a whitened component, whose variance over all pictures is 1


def nearest_centroid(embedding: Tensor, clusters: int, seed: int) -> nn.Linear:
    """A head whose largest logit is the nearest centroid's: for embedding (N, D), a layer D -> clusters.

    Where fewer pictures than clusters differ, the last outputs stand for no class.
    """
    points = embedding.double().numpy()
    number = min(clusters, len(np.unique(points, axis=0)))
    found = KMeans(number, n_init=STARTS, random_state=seed).fit(points)
    centres = torch.from_numpy(found.cluster_centers_)  # (number, D)
    variance = max(float(found.inertia_) / points.size, SMALLEST_VARIANCE)
    head = nn.Linear(points.shape[1], number)
    with torch.no_grad():
        head.weight.copy_(centres / variance)
        head.bias.copy_(-centres.square().sum(1) / (2 * variance))
    return with_outputs(head, clusters)


def with_outputs(head: nn.Linear, outputs: int) -> nn.Linear:
    """The head with more outputs: those that are added are never chosen."""
    added = outputs - head.out_features
    wider = nn.Linear(head.in_features, outputs)
    with torch.no_grad():
        wider.weight.copy_(torch.cat([head.weight, torch.zeros(added, head.in_features)]))
        wider.bias.copy_(torch.cat([head.bias, torch.full((added,), NEVER)]))
    return wider
