"""`python -m train sizes`, `stability`, `zoo`, `magnification`, `methods`, `tuning`: experiments that do not ship."""

from pathlib import Path
from typing import Any

import click

from infer.errors import UsageError
from train.cli.run import Run
from train.cli.stage import stage
from train.experiments import magnification, scan_sizes, stability, zoo
from train.experiments.methods import compare as methods
from train.experiments.methods.networks import demand_torchmil
from train.experiments.tuning.compare import compare as compare_tuning
from train.experiments.tuning.recipe import Clock
from train.experiments.tuning.table import wide as wide_tuning
from train.experiments.tuning.ways import Setting
from train.members import naive_bayes
from train.members.backbones import BACKBONES


@stage("sizes", "Compare widths and input sizes of SCAN's backbone: class quality and pictures per second.")
@click.option(
    "--compare-with",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV of patient_id, image, cell_class (0 to 14): reference classes for the agreement in the table.",
)
@click.option("--size", "names", type=click.Choice(list(BACKBONES)), multiple=True, help="Default: all.")
def sizes_command(patients: Path, run: Path, compare_with: Path | None, names: tuple[str, ...], **options: Any) -> None:
    if options["backbone"]:
        raise UsageError("sizes does not accept --backbone: use --size")
    this = Run(patients, run, options)
    table = scan_sizes.compare_sizes(
        this.bags,
        this.folds,
        this.folder,
        this.recipe.scan,
        this.recipe.bayes,
        this.seed,
        this.device,
        reference=naive_bayes.read_cell_classes(compare_with, this.bags) if compare_with else None,
        names=names or tuple(BACKBONES),
    )
    click.echo(table.round(3).T.to_string(header=False))


@stage("stability", "Compare ways to stabilise the mixture of experts on the report's split.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Trainings per variant.")
def stability_command(patients: Path, run: Path, seeds: int, **options: Any) -> None:
    this = Run(patients, run, options)
    of = range(this.seed, this.seed + seeds)
    table = stability.compare(this.bags, this.folder, this.recipe.moe, of, this.device)
    click.echo(table.round(3).to_string(index=False))


@stage("zoo", "Compare the report's other networks with its baseline, on its split; --recipe small uses a tiny one.")
@click.option("--network", "networks", type=click.Choice(list(zoo.NETWORKS)), multiple=True, help="Default: all.")
def zoo_command(patients: Path, run: Path, networks: tuple[str, ...], **options: Any) -> None:
    _refuse_others("zoo", options, "see --recipe")
    this = Run(patients, run, options)
    recipe = zoo.FULL if options["recipe"] == "full" else zoo.TINY
    table = zoo.compare(this.bags, this.folder, recipe, this.seed, this.device, networks or tuple(zoo.NETWORKS))
    click.echo(table.round(3).to_string(index=False))


@stage("magnification", "Compare how much of a cell the ImageNet network sees, and how large.")
def magnification_command(patients: Path, run: Path, **options: Any) -> None:
    this = Run(patients, run, options)
    table = magnification.compare(this.bags, this.folder, this.seed, this.device)
    click.echo(magnification.wide(table).T.to_string())


@stage("methods", "Compare the field's ways to judge a bag of pictures with ours, nested, on the same features.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Repeats, each with its own folds.")
@click.option("--method", "names", type=click.Choice(list(methods.METHODS)), multiple=True, help="Default: all.")
def methods_command(patients: Path, run: Path, seeds: int, names: tuple[str, ...], **options: Any) -> None:
    demand_torchmil(methods.chosen(names))
    this = Run(patients, run, options)
    table = methods.compare(this.bags, this.folder, this.seed, this.device, seeds, names)
    click.echo(methods.wide(table).T.to_string())


@stage("tuning", "Compare ways to adapt the ImageNet network to cells, with and without labels (for a GPU).")
@click.option("--minutes", type=click.FloatRange(0), help="Stop after so long; the same command then goes on.")
def tuning_command(patients: Path, run: Path, minutes: float | None, **options: Any) -> None:
    _refuse_others("tuning", options, "its recipes are its own")
    clock = Clock(minutes)
    this = Run(patients, run, options)
    table = compare_tuning(Setting(this.bags, this.folder, this.recipe.bayes, this.seed, this.device, clock))
    click.echo(wide_tuning(table).to_string() if len(table) else "no way is finished: give more --minutes")


def _refuse_others(command: str, options: dict[str, Any], instead: str) -> None:
    """Refuse the shared options that replace values of a recipe that a command does not use."""
    others = ("epochs", "without", "backbone")
    if any(options[name] for name in others) or options["images_per_patient"] is not None:
        names = "--epochs, --images-per-patient, --without or --backbone"
        raise UsageError(f"{command} does not accept {names}: {instead}")
