"""The interface of an ensemble member in training: how it is trained, which files it writes, how it is evaluated.

To add a member, define one `MemberTraining` in a new file and add one line to registry.py.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from train.core.arrays import Indices
from train.data.bags import Bags
from train.members.candidate import Model
from train.members.recipes import Recipe

OUT_OF_FOLD = "out_of_fold.csv"
NUMBERS = "numbers.json"  # in the folder of a member that is fitted again when its numbers change


@dataclass(frozen=True)
class MemberJob:
    """Everything needed to train members in a run folder."""

    bags: Bags
    folds: Indices  # (P,) the fold in which each patient is held out
    run: Path
    recipe: Recipe
    seed: int
    device: torch.device


@dataclass(frozen=True)
class NestedJob:
    """Everything needed to evaluate members in the nested protocol."""

    bags: Bags
    run: Path
    recipe: Recipe
    seed: int
    device: torch.device


def as_text(numbers: Mapping[str, Any]) -> str:
    """A member's numbers as JSON, as RUN/FOLDER/numbers.json holds them."""
    return json.dumps(numbers, indent=1)


def digest(numbers: Mapping[str, Any]) -> str:
    """SHA-256 of a member's numbers."""
    return hashlib.sha256(as_text(numbers).encode()).hexdigest()


@dataclass(frozen=True)
class MemberTraining:
    """A member of the ensemble.

    RUN/FOLDER/out_of_fold.csv has one row per patient: patient_id, fold, label, probability, pictures_only (the
    probability without sex, count and age) and further columns specific to the member.
    """

    name: str  # as in infer.members
    folder: str  # its folder in the run folder
    command: str  # `python -m train COMMAND` trains it
    help: str  # of that command; empty where it has options of its own (train/cli/members.py)
    train: Callable[[MemberJob], None]  # trains what is missing
    files: Callable[[Path], Sequence[Path]]  # run folder -> files that export reads, whether they exist or not
    candidate: Callable[[NestedJob], Model]  # the same member for the nested protocol
    # recipe, seed -> everything it depends on, apart from the data; for a member that does not write NUMBERS, its part
    # of the recipe by its name, and the seed: export finds these in RUN/options.json
    numbers: Callable[[Recipe, int], Mapping[str, Any]]
    spread_of: Mapping[str, str] = field(default_factory=dict)  # member's own column -> title of its reported quantiles
