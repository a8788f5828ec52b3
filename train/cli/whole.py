"""`python -m train all`: every stage in order, and how long the rest of them will take."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from infer.members import registry as scored
from train.cli import costs
from train.cli.check import checked_run
from train.cli.costs import Size
from train.cli.run import Run, choose_device, chosen_recipe
from train.data.folds import FOLDS
from train.ensemble.fit import train_ensemble
from train.members import registry
from train.members.absent import train_or_leave_out
from train.members.features import embed_pictures, features_path
from train.members.imagenet import MAGNIFICATION
from train.members.recipes import Recipe
from train.members.training import NUMBERS, OUT_OF_FOLD, MemberTraining, as_text
from train.page.write import write_page
from train.progress.estimate import DEVICE, FILES, PROCESSOR, Stage
from train.progress.progress import Progress

LOG = logging.getLogger("lympho")


def train_whole(patients: Path, folder: Path, options: dict[str, Any]) -> None:
    """Train everything that is missing in a run folder, and log how far it is.

    Raises:
        LymphoError: as the stages do.
    """
    on_device = choose_device(options["device"]).type != "cpu"
    plan = Plan(folder, chosen_recipe(options), options["seed"], on_device)
    progress = Progress(plan.stages(counted(patients)), LOG.info)
    with progress.stage():
        run = checked_run(patients, folder, options)
    plan = Plan(folder, run.recipe, run.seed, on_device)  # the recipe may follow the size of the cohort
    progress.plan(plan.stages(Size(len(run.bags), len(run.bags.crops))))
    with progress.stage():
        embed_pictures(run.bags, run.folder, run.device, MAGNIFICATION)
    for member in registry.MEMBERS:
        with progress.stage():
            train_or_leave_out(member, run.job)
    with progress.stage():
        fit_ensemble(run)
    with progress.stage():
        page = write_page(run.folder)
    click.echo(str(page))


def fit_ensemble(run: Run) -> None:
    """Fit the ensemble and print its figures."""
    figures = train_ensemble(run.bags, run.folds, run.folder)
    click.echo(f"out of fold, recipe {run.recipe.name}, seed {run.seed}:")
    for name, values in figures.items():
        click.echo(f"  {name:32}" + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))


def counted(patients: Path) -> Size:
    """A cohort's size by its files, before its table is read: what is refused or has no label is counted too."""
    return Size(sum(path.is_dir() for path in patients.glob("*")), sum(1 for _ in patients.glob("*/*")))


@dataclass(frozen=True)
class Plan:
    """What is to be done in a run folder."""

    folder: Path
    recipe: Recipe
    seed: int
    on_device: bool  # networks are trained on another device than the processor

    def stages(self, size: Size) -> list[Stage]:
        """All stages of `train_whole`, in order."""
        networks = DEVICE if self.on_device else PROCESSOR
        there = (self.folder / "crops/cohort.json").exists(), features_path(self.folder, MAGNIFICATION).exists()
        return [
            Stage("pictures", FILES, costs.crops(size), float(not there[0])),
            Stage("backbone features", networks, costs.features(size), float(not there[1])),
            *(self._member(member, size, networks) for member in registry.MEMBERS),
            Stage("ensemble", PROCESSOR, costs.ensemble(size)),
            Stage("page", PROCESSOR, costs.page(size)),
        ]

    def _member(self, member: MemberTraining, size: Size, networks: str) -> Stage:
        titles = {kind.name: kind.title for kind in scored.MEMBERS}
        cost = costs.MEMBERS[member.name](size, self.recipe) if member.name in costs.MEMBERS else costs.MEMBER
        kind = networks if member.name in costs.ON_DEVICE else PROCESSOR
        return Stage(titles.get(member.name, member.name), kind, cost, self._left(member))

    def _left(self, member: MemberTraining) -> float:
        """Share of a member's trainings that no earlier call has finished."""
        folder = self.folder / member.folder
        numbers = folder / NUMBERS
        current = not numbers.exists() or numbers.read_text() == as_text(member.numbers(self.recipe, self.seed))
        if current and all(path.exists() for path in [folder / OUT_OF_FOLD, *member.files(self.folder)]):
            return 0.0
        return 1 - sum(1 for _ in folder.glob("fold-?.csv")) / (FOLDS + 1)
