"""`python -m train evaluate`, `learning-curve`, `figures` and `page`: performance of the models."""

import json
from pathlib import Path
from typing import Any

import click

from infer.errors import UsageError
from train.cli.run import Run
from train.cli.stage import cli, stage
from train.evaluation import report_protocol
from train.evaluation.learning_curve.measure import QUICK, learning_curve
from train.evaluation.learning_curve.report import write_curve
from train.evaluation.nested.evaluate import NestedOptions, evaluate_nested
from train.evaluation.report_protocol import STATED
from train.figures.draw import draw_all
from train.members import registry
from train.page.write import write_page


class Share(click.ParamType[tuple[int, int]]):
    """I/N: share I of N of the work, counted from 1."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Two integers, the first between 1 and the second."""
        part, _, parts = str(value).partition("/")
        if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
            self.fail(f"{value} is not I/N with 1 <= I <= N", param, ctx)
        return int(part), int(parts)


@stage("evaluate", "Evaluate the models under a protocol.")
@click.option(
    "--protocol",
    type=click.Choice(["report", "nested"]),
    required=True,
    help="report: the report's split and folds, best epoch on the validation patients (optimistic). "
    "nested: nested cross-validation; everything is fitted and selected inside the outer folds.",
)
@click.option("--model", "models", type=click.Choice(list(STATED)), multiple=True, help="report: default is all.")
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="nested: repeats for models that train quickly; slow ones are evaluated once.",
)
@click.option(
    "--member",
    "members",
    type=click.Choice(registry.names()),
    multiple=True,
    help="nested: evaluate only these members, beside sex, age and count alone. Default: all, and their ensembles.",
)
@click.option("--inductive", is_flag=True, help="nested: train SCAN and SimCLR on each fold's training pictures only.")
@click.option("--leads", is_flag=True, help="nested: also evaluate models tried for improving on the report's.")
@click.option("--deep-leads", is_flag=True, help="nested: with --leads, also fine-tune EfficientNet-Lite0 (for a GPU).")
@click.option(
    "--leave-one-centre-out",
    is_flag=True,
    help="nested: hold out each centre of the table's column CENTRE in turn, in place of random outer folds.",
)
@click.option("--part", type=Share(), help="nested: train share I of N and stop, so that N calls can run in parallel.")
def evaluate_command(
    patients: Path,
    run: Path,
    protocol: str,
    models: tuple[str, ...],
    repeats: int,
    members: tuple[str, ...],
    inductive: bool,
    leads: bool,
    deep_leads: bool,
    leave_one_centre_out: bool,
    part: tuple[int, int] | None,
    **options: Any,
) -> None:
    if protocol == "nested" and models:
        raise UsageError("--model can only be used with --protocol report")
    if protocol == "report" and (members or inductive or leads or deep_leads or leave_one_centre_out or part):
        raise UsageError(
            "--member, --inductive, --leads, --deep-leads, --leave-one-centre-out and --part can only be used with "
            "--protocol nested"
        )
    nested = NestedOptions(
        repeats,
        part,
        inductive=inductive,
        leads=leads,
        deep=deep_leads,
        by_centre=leave_one_centre_out,
        members=members,
    )
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


@stage(
    "learning-curve", "Say what more patients would bring: nested figures on 25, 50, 75 and 100% of the training ones."
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Repeats, each with other folds and other patients in the smaller sizes.",
)
@click.option(
    "--member",
    "members",
    type=click.Choice(registry.names()),
    multiple=True,
    help=f"Evaluate these members, beside sex, age and count alone. Default: those that are quick, {', '.join(QUICK)}.",
)
def learning_curve_command(patients: Path, run: Path, repeats: int, members: tuple[str, ...], **options: Any) -> None:
    this = Run(patients, run, options)
    curve = learning_curve(this.bags, this.folder, this.recipe, this.seed, this.device, repeats, members)
    click.echo(write_curve(curve, this.folder), nl=False)


@cli.command("figures", help="Redraw the report's table 2 and figures 2 to 10 from RUN into RUN/figures.")
@click.argument("patients", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed for the sample pictures.")
def figures_command(patients: Path, run: Path, seed: int) -> None:
    del patients  # all commands have this argument; this one reads only the run folder
    for name in draw_all(run, seed):
        click.echo(str(run / "figures" / name))


@cli.command("page", help="Write RUN/training.html anew: what a finished training is worth. Nothing is trained.")
@click.argument("patients", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
def page_command(patients: Path, run: Path) -> None:
    del patients  # as above
    click.echo(str(write_page(run)))
