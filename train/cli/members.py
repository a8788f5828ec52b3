"""`python -m train crops`, `baseline`, `cells`, `moe`, `imagenet`, `ensemble`, `all`, `scan`, `naive-bayes`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from train.cli.run import Run
from train.cli.stage import stage
from train.ensemble import fit as ensemble
from train.experiments import classifiers
from train.members import naive_bayes, registry
from train.members.absent import train_or_leave_out
from train.members.scan import stages
from train.members.training import MemberTraining


@stage("crops", "Decode all pictures into a cache in the run folder.")
def crops_command(patients: Path, run: Path, **options: Any) -> None:
    bags = Run(patients, run, options).bags
    click.echo(f"{len(bags)} patients, {len(bags.crops)} pictures")


def _add_command(member: MemberTraining) -> None:
    @stage(member.command, member.help)
    def command(patients: Path, run: Path, **options: Any) -> None:
        member.train(Run(patients, run, options).job)


for member in registry.MEMBERS:
    if member.help:
        _add_command(member)


@stage("scan", "Train SCAN with a network of its own, for the report's protocol: pretext to fusion.")
@click.option(
    "--compare-with",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV of patient_id, image, cell_class (0 to 14): reference classes for the agreement in the stage table.",
)
@click.option(
    "--stability-seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Train with this many random seeds, and write how well the classes agree.",
)
@click.option(
    "--stability-of",
    type=click.Choice(stages.STABILITY_OF),
    default="clustering",
    show_default=True,
    help="clustering: repeat only the clustering, on the same pretext; whole: repeat everything, with the pretext.",
)
def scan_command(
    patients: Path, run: Path, compare_with: Path | None, stability_seeds: int, stability_of: str, **options: Any
) -> None:
    _train_scan(Run(patients, run, options), compare_with, stability_seeds, stability_of)


@stage("naive-bayes", "Fit Gaussian naive Bayes on the cell classes of `scan` or of a file, for the report's protocol.")
@click.option(
    "--cell-classes",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV of patient_id, image, cell_class (0 to 14), instead of SCAN's classes.",
)
@click.option(
    "--protocol",
    type=click.Choice(["report", "honest"]),
    default="honest",
    show_default=True,
    help="report: quantiles and scaling fitted on all patients before the split, as in the report (optimistic). "
    "honest: fitted on the training patients.",
)
@click.option("--compare", is_flag=True, help="Compare all suitable scikit-learn classifiers on the same features.")
def naive_bayes_command(
    patients: Path, run: Path, cell_classes: Path | None, protocol: str, compare: bool, **options: Any
) -> None:
    _train_naive_bayes(Run(patients, run, options), cell_classes, protocol, compare=compare)


@stage("ensemble", "Fit calibration, weights and thresholds on the members' out-of-fold predictions.")
def ensemble_command(patients: Path, run: Path, **options: Any) -> None:
    _train_ensemble(Run(patients, run, options))


@stage("all", "Train everything, in order; finished parts of an earlier call are kept.")
def all_command(patients: Path, run: Path, **options: Any) -> None:
    this = Run(patients, run, options)
    for member in registry.MEMBERS:
        train_or_leave_out(member, this.job)
    _train_ensemble(this)


def _train_scan(
    run: Run, compare_with: Path | None = None, stability_seeds: int = 1, stability_of: str = "clustering"
) -> None:
    reference = naive_bayes.read_cell_classes(compare_with, run.bags) if compare_with else None
    stages.train_scan(
        run.bags,
        run.folder,
        run.recipe.scan,
        run.seed,
        run.device,
        reference=reference,
        stability_seeds=stability_seeds,
        stability_of=stability_of,
    )


def _train_naive_bayes(run: Run, cell_classes: Path | None, protocol: str, *, compare: bool = False) -> None:
    figures = naive_bayes.train_on_classes(run.job, cell_classes, protocol)
    click.echo(json.dumps(asdict(figures), indent=1))
    if compare:
        classes = naive_bayes.read_cell_classes(cell_classes or run.folder / "scan" / "classes.csv", run.bags)
        base = naive_bayes.patient_features(run.bags, classes)
        folder = naive_bayes.FOLDER if cell_classes is None else naive_bayes.GIVEN_CLASSES_FOLDER
        comparison = classifiers.compare_classifiers(base, run.bags.labels, protocol, run.recipe.bayes, run.seed)
        classifiers.write_comparison(comparison, run.folder / folder)


def _train_ensemble(run: Run) -> None:
    figures = ensemble.train_ensemble(run.bags, run.folds, run.folder)
    click.echo(f"out of fold, recipe {run.recipe.name}, seed {run.seed}:")
    for name, values in figures.items():
        click.echo(f"  {name:24}" + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))
