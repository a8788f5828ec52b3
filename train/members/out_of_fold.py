"""Cross-validation of the deep members: train a network per fold, predict the held-out patients, keep both."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from train.core.arrays import Indices
from train.core.curves import MALIGNANT_WEIGHT
from train.core.files import write_table
from train.data.bags import Bags
from train.data.folds import FOLDS
from train.progress.report import skipped, steps

LOG = logging.getLogger("lympho")

ALL_OF_FOLD = FOLDS / (FOLDS - 1)  # what a training on all patients costs, as a multiple of one without a fold's


@dataclass(frozen=True)
class Trainee:
    """How a member is trained and written as a checkpoint, and how a checkpoint predicts."""

    train: Callable[[Indices, Path], None]  # patients, checkpoint to write
    predict: Callable[[Path, Indices], dict[str, npt.NDArray[np.float64]]]  # checkpoint, patients -> columns


def cross_predict(
    bags: Bags, folds: Indices, folder: Path, trainee: Trainee, name: str = "out_of_fold.csv"
) -> pd.DataFrame:
    """Out-of-fold predictions for all patients, and full.safetensors trained on all of them.

    What an earlier call finished is not trained again.

    Args:
        bags: all patients.
        folds: (P,) fold in which each patient is held out.
        folder: where everything is written.
        trainee: the member.
        name: file name of the table with all predictions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for fold in steps(range(FOLDS), "training", more=ALL_OF_FOLD):
        path, table_path = folder / f"fold-{fold}.safetensors", folder / f"fold-{fold}.csv"
        if not table_path.exists():
            if not path.exists():
                trainee.train(np.flatnonzero(folds != fold), path)
            held_out = np.flatnonzero(folds == fold)
            columns = trainee.predict(path, held_out)
            facts = {"patient_id": [bags.patient_ids[index] for index in held_out], "fold": fold}
            write_table(table_path, pd.DataFrame({**facts, "label": bags.labels[held_out], **columns}))
        else:
            skipped()
        parts.append(pd.read_csv(table_path, dtype={"patient_id": str}, keep_default_na=False))
    if not (folder / "full.safetensors").exists():
        trainee.train(np.arange(len(bags)), folder / "full.safetensors")
    table = pd.concat(parts).set_index("patient_id").loc[bags.patient_ids].reset_index()
    write_table(folder / name, table)
    return table


def batches_of(indices: Indices, size: int) -> Iterator[Indices]:
    """Consecutive batches; the last may be smaller."""
    return (indices[start : start + size] for start in range(0, len(indices), size))


def class_weights(device: torch.device) -> Tensor:
    """Class weights (2,) of reactive and malignant: a missed malignancy costs double (report, section 3.2)."""
    return torch.tensor([1.0, MALIGNANT_WEIGHT], device=device)
