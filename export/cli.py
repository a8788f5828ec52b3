"""The command lines of export: `python -m export RUN BUNDLE` and `python -m export adapt`."""

import re
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

import click

from infer.errors import UsageError

PAGE = "training.html"  # of a training
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
NEW = click.Path(path_type=Path, file_okay=False)
REPLACE = "Replace {} if it is not empty."


@click.command(epilog="python -m export adapt --help: adapt a finished bundle to a hospital's own patients.")
@click.argument("run", type=FOLDER)
@click.argument("bundle", type=NEW)
@click.option("--replace", is_flag=True, help=REPLACE.format("BUNDLE"))
@click.option(
    "--about",
    type=click.File(encoding="utf-8"),
    help="Text file for the model card: centre, stain, analyser, and how many recipes were tried.",
)
@click.option(
    "--reduced",
    type=FOLDER,
    metavar="PATIENTS",
    help="Also include int8 graphs for CPUs, if they change no decision for these patients "
    "and no probability by more than .01.",
)
@click.option(
    "--nested-of",
    "earlier",
    type=FOLDER,
    metavar="EARLIER",
    help="An earlier bundle of the same training: its card's nested results stand in this one's, if RUN has none.",
)
@click.option(
    "--accept-weak",
    is_flag=True,
    help="Export an ensemble that ranks no better than sex, age and count alone; bundle and runs say so.",
)
def export_command(
    run: Path,
    bundle: Path,
    replace: bool,
    about: TextIO | None,
    reduced: Path | None,
    earlier: Path | None,
    accept_weak: bool,
) -> None:
    """Export the finished training in RUN to a verified bundle in folder BUNDLE."""
    from export.pipeline import check_finished, export_bundle  # slow imports, so only when needed
    from export.weak import worth

    check_finished(run)
    found = worth(run)
    if found.weak and not accept_weak:
        raise UsageError(
            f"{run}: {found.weak}. Train on more patients, or look into {run / PAGE}; --accept-weak exports it all the "
            "same"
        )
    words = about.read() if about else ""
    made = export_bundle(run, bundle, replace=replace, about=words, patients=reduced, weak=found.weak, earlier=earlier)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    size = sum(len(data) for data in made.graphs.values()) / 1e6
    click.echo(f"{bundle}: bundle {made.bundle_id}, {size:.1f} MB of graphs")


class Point(click.ParamType[tuple[str, float]]):
    """NAME=SENSITIVITY: an operating point that calls so few malignant patients reactive."""

    name = "NAME=SENSITIVITY"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """A new name, and a number from .5 to 1, 1 excluded."""
        name, _, text = str(value).partition("=")
        try:
            sensitivity = float(text)
        except ValueError:
            sensitivity = 0.0
        if not NAME.fullmatch(name) or not 0.5 <= sensitivity < 1:
            self.fail(
                f"{value!r} is not {self.name}, such as rule-out=.99: small letters, digits and dashes; from .5 to "
                "below 1",
                param,
                ctx,
            )
        return name, sensitivity


@click.command()
@click.argument("bundle", type=FOLDER)
@click.argument("validation", type=FOLDER)
@click.argument("new_bundle", type=NEW, metavar="NEWBUNDLE")
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of malignant patients among those to be scored, if it is not that of the validation.",
)
@click.option("--operating-point", "points", type=Point(), multiple=True, help="One more operating point; repeatable.")
@click.option(
    "--reduced",
    type=FOLDER,
    metavar="PATIENTS",
    help="The validation's patients: keep int8 graphs for CPUs, if they change no decision and no probability by "
    "more than .01.",
)
@click.option("--replace", is_flag=True, help=REPLACE.format("NEWBUNDLE"))
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed of folds and intervals.")
def adapt_command(
    bundle: Path,
    validation: Path,
    new_bundle: Path,
    prevalence: float | None,
    points: tuple[tuple[str, float], ...],
    reduced: Path | None,
    replace: bool,
    seed: int,
) -> None:
    """Adapt BUNDLE to the patients of VALIDATION, which `python -m train validate` wrote: NEWBUNDLE.

    The networks stay. Probabilities are recalibrated, and thresholds chosen, as far as the number of patients allows.
    """
    from export.adapting.adapt import AdaptOptions, adapt
    from export.adapting.points import BALANCED, USUAL
    from infer.bundle.load import load_bundle

    names = [*USUAL, BALANCED, *(name for name, _ in points)]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise UsageError(f"--operating-point {twice[0]}: is there already. Choose another name")
    asked = AdaptOptions(prevalence, {**USUAL, **dict(points)}, reduced, replace, seed)
    made, found = adapt(load_bundle(bundle), validation, new_bundle, asked)
    click.echo(f"{new_bundle}: bundle {made.bundle_id}")
    if made.manifest.adapted:
        click.echo(f"fitted on {made.manifest.adapted.patients} patients: {made.manifest.adapted.fitted}")
    for title, one in found.calibration.items() if found else ():
        before, after = (
            f"{of.value:.3f} [{of.low:.3f}, {of.high:.3f}]" if of else "" for of in (one.before, one.after)
        )
        click.echo(f"{title}: {before} before, {after} after")
    click.echo(f"more: {new_bundle / 'MODEL_CARD.md'}")
