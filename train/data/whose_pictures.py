"""Whose pictures a patient is judged by: the own ones, another patient's, or a blank one.

A model that ranks patients as well by pictures of others, or by blank ones, has learnt nothing from pictures.
"""

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.core.arrays import Floats, Indices

OWN, SWAPPED, BLANK = "probability", "swapped", "blank"  # columns of predictions
COLUMNS = (OWN, SWAPPED, BLANK)
NOBODY = -1  # in place of a patient's index: a single blank picture; also the last row of features that have one for it
WHITE = 255


def whose_pictures(asked: Indices, patient_ids: Sequence[str]) -> dict[str, Indices]:
    """Whose pictures each patient is judged by, for each of COLUMNS: (A,) indices of patients, or NOBODY.

    Swapped: nobody keeps the own pictures, and everybody's are used once. Who gets whose depends on the patients alone,
    not on their order. A patient who is alone gets a blank picture.

    Args:
        asked: (A,) indices of the patients to judge.
        patient_ids: IDs of all patients.
    """
    order = np.argsort([_drawn(patient_ids[index]) for index in asked])  # as good as random
    swapped = np.empty_like(asked)
    swapped[order] = np.roll(asked[order], 1)
    nobody = np.full_like(asked, NOBODY)
    return {OWN: asked, SWAPPED: swapped if len(asked) > 1 else nobody, BLANK: nobody}


def by_pictures(
    asked: Indices, patient_ids: Sequence[str], judge: Callable[[Indices], npt.NDArray[np.floating]]
) -> dict[str, Floats]:
    """Probabilities of the patients by their own pictures, by swapped and by blank ones: for each of COLUMNS, (A,).

    Args:
        asked: (A,) indices of the patients to judge.
        patient_ids: IDs of all patients.
        judge: (A,) whose pictures each of them is shown -> (A,) probabilities.
    """
    found = {column: judge(shown) for column, shown in whose_pictures(asked, patient_ids).items()}
    return {column: np.asarray(values, dtype=np.float64) for column, values in found.items()}


def blank_picture(size: int) -> Tensor:
    """One white picture: (1, size, size, 3) uint8."""
    return torch.full((1, size, size, 3), WHITE, dtype=torch.uint8)


def _drawn(patient_id: str) -> str:
    return hashlib.sha256(json.dumps(patient_id).encode()).hexdigest()
