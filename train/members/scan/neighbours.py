"""Nearest neighbours of each picture in the embedding, and how often they come from the cell's own patient.

Neighbours that follow the patient follow the stain; classes built on them would distinguish slides, not cells.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from train.core.fitting import TrainingError


def nearest(embedding: Tensor, count: int, patient: Tensor | None = None) -> Tensor:
    """Indices of the `count` most similar other pictures (cosine): (N, D) -> (N, count).

    Args:
        embedding: (N, D).
        count: number of neighbours.
        patient: (N,) patient of each picture; if given, neighbours never come from the same patient.

    Raises:
        TrainingError: there are not enough other pictures.
    """
    others = len(embedding) - (1 if patient is None else int(torch.bincount(patient).max()))
    if others < count:
        raise TrainingError(
            f"scan: {count} neighbours are needed, but a picture has only {others} candidates. Train on more patients"
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
    """Share of neighbours from the cell's own patient, and the share expected by chance."""
    same = patient[neighbours.numpy()] == patient[:, None]
    sizes = np.bincount(patient)
    chance = np.sum(sizes * (sizes - 1)) / (len(patient) * (len(patient) - 1))
    return float(same.mean()), float(chance)
