"""The command group, and the options shared by all training stages."""

from collections.abc import Callable
from pathlib import Path

import click

from train.data.augment import AUGMENTATIONS
from train.members.backbones import BACKBONES
from train.members.recipes import RECIPES


@click.group()
def cli() -> None:
    """Train lympho's models on a folder of labelled patients."""


Option = Callable[[Callable[..., None]], Callable[..., None]]
PATIENTS = click.argument("patients", type=click.Path(path_type=Path, exists=True, file_okay=False))
TABLE_OPTIONS: tuple[Option, ...] = (
    click.option("--reference-date", type=click.DateTime(["%Y-%m-%d"]), help="Compute ages at this date."),
    click.option("--date-format", help="strptime format of all dates in the table, or iso."),
    click.option("--sample-date-format", help="The same for SAMPLE_DATE only."),
    click.option("--sex-codes", help="Meaning of the codes in GENDER, for example H=male,M=female."),
)
PICTURE_SIZE = click.option(
    "--picture-size",
    type=(click.IntRange(1), click.IntRange(1)),
    metavar="WIDTH HEIGHT",
    help="Size of the analyser's original pictures, in pixels, if PATIENTS contains only their centres.",
)
DEVICE = click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True)


def with_options(*options: Option) -> Option:
    """Decorator that adds options, as if each decorated the function, the first one on top."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def stage(name: str, help_text: str) -> Callable[[Callable[..., None]], click.Command]:
    """Decorator for a command with the options shared by all stages."""
    options: list[Option] = [
        PATIENTS,
        click.argument("run", type=click.Path(path_type=Path, file_okay=False)),
        *TABLE_OPTIONS,
        PICTURE_SIZE,
        click.option(
            "--pixel-size",
            type=click.FloatRange(0, min_open=True),
            metavar="UM",
            help="Micrometres that a pixel of the pictures covers, if known.",
        ),
        DEVICE,
        click.option("--recipe", type=click.Choice(list(RECIPES)), default="full", show_default=True),
        click.option("--epochs", type=click.IntRange(1), help="Replaces the recipe's value."),
        click.option(
            "--images-per-patient", type=click.IntRange(0), help="Maximum per patient and epoch; 0 means all."
        ),
        click.option(
            "--without",
            type=click.Choice(AUGMENTATIONS),
            multiple=True,
            help="Switch off an augmentation: crop or stain jitter (SCAN), turns (flips and rotations, all models).",
        ),
        click.option("--backbone", type=click.Choice(list(BACKBONES)), help="SCAN's backbone; replaces the recipe's."),
        click.option(
            "--segment", is_flag=True, help="Remove the cell's surroundings (report, figure 4); cannot be exported."
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Random seed."),
    ]

    def decorate(function: Callable[..., None]) -> click.Command:
        return cli.command(name, help=help_text)(with_options(*options)(function))

    return decorate
