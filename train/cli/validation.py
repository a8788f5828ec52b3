"""`python -m train validate`: how good a finished bundle is on patients whose diagnosis is known."""

import datetime as dt
from pathlib import Path
from typing import Any

import click

from infer.bundle.load import load_bundle
from infer.options import Options, check_options, check_prevalence
from train.cli.stage import DEVICE, PATIENTS, TABLE_OPTIONS, cli, with_options
from train.evaluation.validation.validate import PAGE, validate


@cli.command("validate", help="Say how good BUNDLE is on the labelled patients in PATIENTS; all goes to OUT.")
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@PATIENTS
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--annotations", type=click.Path(path_type=Path), help="Clinical table, if it is not in PATIENTS.")
@with_options(*TABLE_OPTIONS)
@click.option(
    "--pixel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="UM",
    help="Micrometres that a pixel of the pictures covers, for another camera than in training.",
)
@click.option(
    "--predictive-values-at",
    "prevalences",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    multiple=True,
    help="Also give predictive values where such a share is malignant; repeatable.",
)
@click.option(
    "--swapped",
    is_flag=True,
    help="Also score everybody by another patient's pictures: what that costs is what the bundle sees. Twice the time.",
)
@DEVICE
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of intervals and folds.")
def validate_command(
    bundle: Path,
    patients: Path,
    out: Path,
    prevalences: tuple[float, ...],
    swapped: bool,
    seed: int,
    reference_date: dt.datetime | None,
    **options: Any,
) -> None:
    for share in prevalences:
        check_prevalence("--predictive-values-at", share)
    date = reference_date.date() if reference_date else None
    asked = Options(patients, out, bundle=bundle, reference_date=date, **options)
    check_options(asked)
    said = validate(load_bundle(bundle), asked, seed, prevalences, swap=swapped)
    click.echo("\n".join([said.kind, said.whose, *said.sentences, str(out / PAGE)]))
