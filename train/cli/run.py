"""Patients, run folder, recipe and device of a call: the common start of all training commands."""

import datetime as dt
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from infer.errors import UsageError
from train.core.files import write_text
from train.core.provenance import record_call
from train.data import crops
from train.data.demands import problem_of_run
from train.data.folds import assign_folds
from train.members.recipes import RECIPES, Recipe, adapted
from train.members.scaling import scaled
from train.members.training import MemberJob


class Run:
    """Patients, run folder and options of a call."""

    def __init__(self, patients: Path, folder: Path, options: dict[str, Any]) -> None:
        if problem := problem_of_run(folder):
            raise UsageError(problem)
        self.folder = folder
        self.seed: int = options["seed"]
        self.device = choose_device(options["device"])
        recipe = chosen_recipe(options)
        reference: dt.datetime | None = options["reference_date"]
        self.bags = crops.cache_crops(
            patients,
            folder,
            reference and reference.date(),
            options["date_format"],
            segment=options["segment"],
            sample_date_format=options["sample_date_format"],
            sex_codes=options["sex_codes"],
            picture_size=options["picture_size"],
            pixel_size=options["pixel_size"],
        ).on(self.device)
        pictures = np.diff(self.bags.offsets).tolist()
        given = options["epochs"] is not None or options["images_per_patient"] is not None
        self.recipe: Recipe = scaled(recipe, pictures, given=given)
        self._claim()

    @property
    def job(self) -> MemberJob:
        """Everything needed to train members."""
        return MemberJob(self.bags, self.folds, self.folder, self.recipe, self.seed, self.device)

    @property
    def folds(self) -> npt.NDArray[np.int64]:
        return assign_folds(self.bags, self.folder, self.seed)

    def _claim(self) -> None:
        """Record seed and recipe of this run, or refuse to mix different ones in one folder."""
        path = self.folder / "options.json"
        mine = {"seed": self.seed, "recipe": asdict(self.recipe)}
        if not path.exists():
            write_text(path, json.dumps(mine, indent=1))
        elif json.loads(path.read_text()) != json.loads(json.dumps(mine)):
            raise UsageError(f"{self.folder}: was started with another seed or recipe. Choose another run folder")
        facts = {"recipe": self.recipe.name, "seed": self.seed, "data": self.bags.facts}
        record_call(self.folder, facts, self.device)


def chosen_recipe(options: dict[str, Any]) -> Recipe:
    """The recipe named, with the values that the options replace."""
    return adapted(
        RECIPES[options["recipe"]],
        options["epochs"],
        options["images_per_patient"],
        options["without"],
        options["backbone"],
    )


def choose_device(name: str) -> torch.device:
    """Choose the device: `auto` uses CUDA if available.

    Raises:
        UsageError: cuda was requested but is not available.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
