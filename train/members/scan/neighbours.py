"""Each picture's nearest neighbours in the embedding, and how often they come from the cell's own patient.

Where neighbours follow the patient they follow the stain, and classes built on them would tell slides apart, not cells.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from train.core.fitting import TrainingError


def nearest(embedding: Tensor, count: int, patient: Tensor | None = None) -> Tensor:
    """Indices of the `count` most similar pictures (cosine), never itself: (N, D) -> (N, count).

    Args:
        patient: (N,) each picture's patient; where given, neighbours never come from the same one.

    Raises:
        TrainingError: there are not that many other pictures.
    """
    others = len(embedding) - (1 if patient is None else int(torch.bincount(patient).max()))
    if others < count:
        raise TrainingError(
            f"scan: a picture has {others} others to be like, {count} neighbours are wanted. Train on more patients"
        )
    unit = functional.normalize(embedding, dim=1)
    found = []
    for start in range(0, len(unit), 1024):
        similarity = unit[start : start + 1024] @ unit.T  # (<= 1024, N)
        rows = torch.arange(len(similarity))
        similarity[rows, start + rows] = -torch.inf
        if patient is not None:
            similarity[patient[start : start + 1024, None] == patient[None, :]] = -torch.inf
        found.append(similarity.topk(count, dim=1).indices)
    return torch.cat(found)


def own_patient_share(neighbours: Tensor, patient: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Share of neighbours from the cell's own patient, and the share that chance alone would give."""
    same = patient[neighbours.numpy()] == patient[:, None]
    sizes = np.bincount(patient)
    chance = np.sum(sizes * (sizes - 1)) / (len(patient) * (len(patient) - 1))
    return float(same.mean()), float(chance)
