"""The command line's group, and the options that all stages of a training share."""

from collections.abc import Callable
from pathlib import Path

import click

from train.data.augment import AUGMENTATIONS
from train.members.backbones import BACKBONES
from train.members.recipes import RECIPES


@click.group()
def cli() -> None:
    """Train lympho's models on a folder of labelled patients."""


def stage(name: str, help_text: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command with the options that all stages share."""
    options = [
        click.argument("patients", type=click.Path(path_type=Path, exists=True, file_okay=False)),
        click.argument("run", type=click.Path(path_type=Path, file_okay=False)),
        click.option("--reference-date", type=click.DateTime(["%Y-%m-%d"]), help="Ages are taken at this day."),
        click.option("--date-format", help="strptime format of all dates in the table, or iso."),
        click.option("--sample-date-format", help="The same for SAMPLE_DATE alone."),
        click.option("--sex-codes", help="What the codes in GENDER mean, for example H=male,M=female."),
        click.option(
            "--picture-size",
            type=(click.IntRange(1), click.IntRange(1)),
            metavar="WIDTH HEIGHT",
            help="The analyser's pictures, in pixels, if PATIENTS holds only their centres.",
        ),
        click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True),
        click.option("--recipe", type=click.Choice(list(RECIPES)), default="full", show_default=True),
        click.option("--epochs", type=click.IntRange(1), help="Instead of the recipe's."),
        click.option("--images-per-patient", type=click.IntRange(0), help="A patient and epoch at most; 0 is all."),
        click.option(
            "--without",
            type=click.Choice(AUGMENTATIONS),
            multiple=True,
            help="Switch an augmentation off: crop and stain jitter (SCAN's), turns (all models').",
        ),
        click.option("--backbone", type=click.Choice(list(BACKBONES)), help="SCAN's, instead of the recipe's."),
        click.option(
            "--segment", is_flag=True, help="Wipe out what surrounds the cell (report, figure 4); never exported."
        ),
        click.option("--seed", type=int, default=0, show_default=True),
    ]

    def decorate(function: Callable[..., None]) -> click.Command:
        for option in reversed(options):
            function = option(function)
        return cli.command(name, help=help_text)(function)

    return decorate
