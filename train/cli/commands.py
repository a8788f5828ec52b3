"""The command line of training: parse, call, exit. Exit codes 0, 1 (it failed), 2 (wrong usage)."""

import datetime as dt
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch

from infer.errors import LymphoError, UsageError
from train.core.files import write_text
from train.core.memory import keep_freed_memory
from train.core.provenance import record_call
from train.data import crops
from train.data.augment import AUGMENTATIONS
from train.data.folds import assign_folds
from train.ensemble import fit as ensemble
from train.evaluation import report_protocol
from train.evaluation.nested.evaluate import NestedOptions, evaluate_nested
from train.evaluation.report_protocol import STATED
from train.experiments import classifiers, zoo
from train.experiments import scan_sizes as sizes
from train.experiments import stability as moe_stability
from train.figures.draw import draw_all
from train.members import baseline, imagenet, naive_bayes
from train.members import mixture as moe
from train.members.recipes import RECIPES, Recipe, adapted
from train.members.scan import stages
from train.members.scan.backbone import BACKBONES

LOG = logging.getLogger("lympho")


class Run:
    """One call's patients, run folder and options."""

    def __init__(self, patients: Path, folder: Path, options: dict[str, Any]) -> None:
        self.folder = folder
        self.seed: int = options["seed"]
        self.device = choose_device(options["device"])
        self.recipe: Recipe = adapted(
            RECIPES[options["recipe"]],
            options["epochs"],
            options["images_per_patient"],
            options["without"],
            options["backbone"],
        )
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
        ).on(self.device)
        self._claim()

    @property
    def folds(self) -> npt.NDArray[np.int64]:
        return assign_folds(self.bags, self.folder, self.seed)

    def _claim(self) -> None:
        """Write down what makes this run, or refuse to mix two recipes in one folder."""
        path = self.folder / "options.json"
        mine = {"seed": self.seed, "recipe": asdict(self.recipe)}
        if not path.exists():
            write_text(path, json.dumps(mine, indent=1))
        elif json.loads(path.read_text()) != json.loads(json.dumps(mine)):
            raise UsageError(f"{self.folder}: was begun with another seed or recipe. Choose another run folder")
        facts = {"recipe": self.recipe.name, "seed": self.seed, "data": self.bags.facts}
        record_call(self.folder, facts, self.device)


def choose_device(name: str) -> torch.device:
    """cuda where asked for or, with auto, where there.

    Raises:
        UsageError: cuda was asked for and is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


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


@stage("crops", "Decode all pictures once into the run folder.")
def crops_command(patients: Path, run: Path, **options: Any) -> None:
    bags = Run(patients, run, options).bags
    click.echo(f"{len(bags)} patients, {len(bags.crops)} pictures")


@stage("baseline", "Train the baseline CNN: 5 folds and all patients.")
def baseline_command(patients: Path, run: Path, **options: Any) -> None:
    _train_baseline(Run(patients, run, options))


@stage("scan", "Train the unsupervised cell classes: pretext, neighbours, clustering, self-labelling, fusion.")
@click.option(
    "--compare-with",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV of patient_id, image, cell_class (0 to 14): the stage table says how far its classes agree.",
)
@click.option(
    "--stability-seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Cluster from this many seeds, and write how far their classes agree.",
)
@click.option(
    "--stability-of",
    type=click.Choice(stages.STABILITY_OF),
    default="clustering",
    show_default=True,
    help="clustering: from each seed on the same pretext; whole: pretext and all, from each seed.",
)
def scan_command(
    patients: Path, run: Path, compare_with: Path | None, stability_seeds: int, stability_of: str, **options: Any
) -> None:
    _train_scan(Run(patients, run, options), compare_with, stability_seeds, stability_of)


@stage("sizes", "Compare widths and input sizes of SCAN's backbone: what is found against pictures a second.")
@click.option(
    "--compare-with",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV of patient_id, image, cell_class (0 to 14): the table says how far each size's classes agree.",
)
@click.option("--size", "names", type=click.Choice(list(BACKBONES)), multiple=True, help="Default: all.")
def sizes_command(patients: Path, run: Path, compare_with: Path | None, names: tuple[str, ...], **options: Any) -> None:
    if options["backbone"]:
        raise UsageError("sizes has backbones of its own: choose by --size")
    this = Run(patients, run, options)
    table = sizes.compare_sizes(
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


@stage("naive-bayes", "Fit Gaussian naive Bayes on the patients' cell classes.")
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
    help="report: quantiles and scaling over all patients before the split, as the report did (optimistic).",
)
@click.option("--compare", is_flag=True, help="Compare all suitable classifiers of scikit-learn on the same features.")
def naive_bayes_command(
    patients: Path, run: Path, cell_classes: Path | None, protocol: str, compare: bool, **options: Any
) -> None:
    _train_naive_bayes(Run(patients, run, options), cell_classes, protocol, compare=compare)


@stage("moe", "Train the mixture of experts: 5 folds and all patients.")
def moe_command(patients: Path, run: Path, **options: Any) -> None:
    _train_moe(Run(patients, run, options))


@stage("imagenet", "Fit the ImageNet member: 5 folds and all patients.")
def imagenet_command(patients: Path, run: Path, **options: Any) -> None:
    _train_imagenet(Run(patients, run, options))


@stage("ensemble", "Fit calibration, weights and thresholds on the members' out-of-fold predictions.")
def ensemble_command(patients: Path, run: Path, **options: Any) -> None:
    _train_ensemble(Run(patients, run, options))


class Share(click.ParamType[tuple[int, int]]):
    """I/N: one of N shares of the work, counted from 1."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Two whole numbers, the first from 1 to the second."""
        part, _, parts = str(value).partition("/")
        if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
            self.fail(f"{value} is not I/N with 1 <= I <= N", param, ctx)
        return int(part), int(parts)


@stage("evaluate", "Measure the models by a protocol.")
@click.option(
    "--protocol",
    type=click.Choice(["report", "nested"]),
    required=True,
    help="report: the report's split and folds, best epoch on the validation patients (optimistic). "
    "nested: everything fitted and chosen inside outer folds.",
)
@click.option("--model", "models", type=click.Choice(list(STATED)), multiple=True, help="report: all if not given.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="nested: of what trains quickly.")
@click.option("--inductive", is_flag=True, help="nested: SCAN and SimCLR on each training fold's own pictures.")
@click.option("--leads", is_flag=True, help="nested: also everything that was tried to go past the report's models.")
@click.option("--deep-leads", is_flag=True, help="nested: with --leads, also EfficientNet-Lite0 fine-tuned: for a GPU.")
@click.option("--part", type=Share(), help="nested: train one of N shares and stop, so that N calls work side by side.")
def evaluate_command(
    patients: Path,
    run: Path,
    protocol: str,
    models: tuple[str, ...],
    repeats: int,
    inductive: bool,
    leads: bool,
    deep_leads: bool,
    part: tuple[int, int] | None,
    **options: Any,
) -> None:
    if protocol == "nested" and models:
        raise UsageError("--model goes with --protocol report")
    if protocol == "report" and (inductive or leads or deep_leads or part):
        raise UsageError("--inductive, --leads, --deep-leads and --part go with --protocol nested")
    nested = NestedOptions(repeats, part, inductive=inductive, leads=leads, deep=deep_leads)
    this = Run(patients, run, options)
    if protocol == "nested":
        text = evaluate_nested(this.bags, this.folder, this.recipe, this.seed, this.device, nested)
        click.echo(text, nl=bool(text))
        return
    figures = report_protocol.evaluate(
        this.bags, this.folder, this.recipe, this.seed, this.device, models or tuple(STATED)
    )
    click.echo(f"{report_protocol.LABEL}\nrecipe {this.recipe.name}, seed {this.seed}; balanced accuracy:")
    click.echo(json.dumps(figures, indent=1))


@stage("stability", "Compare ways to steady the mixture of experts on the report's split.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Trainings of each way.")
def stability_command(patients: Path, run: Path, seeds: int, **options: Any) -> None:
    this = Run(patients, run, options)
    of = range(this.seed, this.seed + seeds)
    table = moe_stability.compare(this.bags, this.folder, this.recipe.moe, of, this.device)
    click.echo(table.round(3).to_string(index=False))


@stage("zoo", "Compare the networks that the report tried around its baseline, on its split; --recipe small: tiny.")
@click.option("--network", "networks", type=click.Choice(list(zoo.NETWORKS)), multiple=True, help="Default: all.")
def zoo_command(patients: Path, run: Path, networks: tuple[str, ...], **options: Any) -> None:
    others = ("epochs", "without", "backbone")
    if any(options[name] for name in others) or options["images_per_patient"] is not None:
        raise UsageError("zoo has recipes of its own: leave --epochs, --images-per-patient, --without, --backbone out")
    this = Run(patients, run, options)
    recipe = zoo.FULL if options["recipe"] == "full" else zoo.TINY
    table = zoo.compare(this.bags, this.folder, recipe, this.seed, this.device, networks or tuple(zoo.NETWORKS))
    click.echo(table.round(3).to_string(index=False))


@cli.command("figures", help="Redraw the report's table 2 and figures 2 to 10 from RUN alone into RUN/figures.")
@click.argument("patients", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--seed", type=int, default=0, show_default=True, help="Of the pictures drawn as samples.")
def figures_command(patients: Path, run: Path, seed: int) -> None:
    del patients  # every command has it; this one reads the run folder alone
    for name in draw_all(run, seed):
        click.echo(str(run / "figures" / name))


@stage("all", "Everything, in order; what an earlier call finished is kept.")
def all_command(patients: Path, run: Path, **options: Any) -> None:
    this = Run(patients, run, options)
    _train_baseline(this)
    _train_scan(this)
    _train_naive_bayes(this, None, "honest")
    _train_moe(this)
    _train_imagenet(this)
    _train_ensemble(this)


def _train_baseline(run: Run) -> None:
    baseline.train_baseline(run.bags, run.folds, run.folder, run.recipe.baseline, run.seed, run.device)


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
    path = cell_classes or run.folder / "scan" / "classes.csv"
    if not path.exists():
        raise UsageError(f"{run.folder}: has no cell classes. Run `python -m train scan` or name --cell-classes")
    classes = naive_bayes.read_cell_classes(path, run.bags)
    # Classes from a file are not what the run's SCAN network gives: such a model must never reach a bundle.
    name = naive_bayes.FOLDER if cell_classes is None else naive_bayes.GIVEN_CLASSES_FOLDER
    naive_bayes.train_naive_bayes(run.bags, classes, run.folds, run.folder / name, run.recipe.bayes)
    base = naive_bayes.patient_features(run.bags, classes)
    figures = naive_bayes.evaluate_naive_bayes(base, run.bags.labels, protocol, run.recipe.bayes)
    text = json.dumps(asdict(figures), indent=1)
    (run.folder / naive_bayes.FOLDER).mkdir(exist_ok=True)
    write_text(run.folder / naive_bayes.FOLDER / "metrics.json", text)
    click.echo(text)
    if compare:
        comparison = classifiers.compare_classifiers(base, run.bags.labels, protocol, run.recipe.bayes, run.seed)
        classifiers.write_comparison(comparison, run.folder / name)


def _train_moe(run: Run) -> None:
    seeds = range(run.seed, run.seed + run.recipe.moe_seeds)
    moe.train_moe(run.bags, run.folds, run.folder, run.recipe.moe, seeds, run.device)


def _train_imagenet(run: Run) -> None:
    imagenet.train_imagenet(run.bags, run.folds, run.folder, run.device)


def _train_ensemble(run: Run) -> None:
    figures = ensemble.train_ensemble(run.bags, run.folds, run.folder)
    click.echo(f"out of fold, recipe {run.recipe.name}, seed {run.seed}:")
    for name, values in figures.items():
        click.echo(f"  {name:24}" + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))


def main() -> None:
    """Run the command line and exit with 0, 1 or 2."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    keep_freed_memory()
    try:
        cli.main(standalone_mode=True)
    except UsageError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(UsageError.exit_code)
    except LymphoError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
