"""What a member of the ensemble is to training: how it is trained, what it leaves behind, how it is judged.

A new member is one `MemberTraining` in a file of its own and one line in registry.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from train.data.crops import Bags
from train.members.candidate import Indices, Model
from train.members.recipes import Recipe

Classes = npt.NDArray[np.int64]  # (N,) cell class of each picture
OUT_OF_FOLD = "out_of_fold.csv"


@dataclass(frozen=True)
class MemberJob:
    """What a run folder is trained from."""

    bags: Bags
    folds: Indices  # (P,) the fold in which each patient is held out
    run: Path
    recipe: Recipe
    seed: int
    device: torch.device


@dataclass(frozen=True)
class CellClasses:
    """Where the nested protocol has each picture's cell class from."""

    of: Callable[[Indices], Classes]  # for a model that is trained on the patients given
    facts: Mapping[str, Any]  # all that they depend on
    cheap: bool  # to have for other folds


@dataclass(frozen=True)
class NestedJob:
    """What the nested protocol judges members on."""

    bags: Bags
    run: Path
    recipe: Recipe
    seed: int
    device: torch.device
    classes: CellClasses


@dataclass(frozen=True)
class MemberTraining:
    """A member of the ensemble.

    RUN/FOLDER/out_of_fold.csv holds a row a patient: patient_id, fold, label, probability, pictures_only (the
    probability without sex, count and age) and columns of the member's own.
    """

    name: str  # as in infer.members
    folder: str  # in the run folder
    command: str  # `python -m train COMMAND` trains it
    train: Callable[[MemberJob], None]  # what is missing
    files: Callable[[Path], list[Path]]  # run folder -> what export reads, whether it is there or not
    candidate: Callable[[NestedJob], Model]  # the same member, for the nested protocol
    spread_of: Mapping[str, str] = field(default_factory=dict)  # own column -> title: its quantiles are reported
