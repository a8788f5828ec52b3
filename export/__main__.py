"""`python -m export RUN BUNDLE`."""

import logging
import sys
from pathlib import Path
from typing import TextIO

import click

from infer.errors import LymphoError, UsageError
from infer.machine.encoding import use_utf8


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("bundle", type=click.Path(path_type=Path, file_okay=False))
@click.option("--replace", is_flag=True, help="Replace BUNDLE if it is not empty.")
@click.option(
    "--about",
    type=click.File(encoding="utf-8"),
    help="Text file for the model card: centre, stain, analyser, and how many recipes were tried.",
)
@click.option(
    "--reduced",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="PATIENTS",
    help="Also include int8 graphs for CPUs, if they change no decision for these patients "
    "and no probability by more than .01.",
)
def command(run: Path, bundle: Path, replace: bool, about: TextIO | None, reduced: Path | None) -> None:
    """Export the finished training in RUN to a verified bundle in folder BUNDLE."""
    from export.pipeline import export_bundle  # slow import, so only when needed

    made = export_bundle(run, bundle, replace=replace, about=about.read() if about else "", patients=reduced)
    size = sum(len(data) for data in made.graphs.values()) / 1e6
    click.echo(f"{bundle}: bundle {made.bundle_id}, {size:.1f} MB of graphs")


def main() -> None:
    """Run the command line and exit with 0, 1 or 2."""
    logging.basicConfig(level=logging.WARNING)
    try:
        command.main()
    except LymphoError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(UsageError.exit_code if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    use_utf8()
    main()
