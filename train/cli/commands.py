"""The command line of training: parse, call, exit. Exit codes: 0, 1 (failure), 2 (usage error)."""

import logging
import sys

import click

from infer.errors import LymphoError, UsageError
from train.cli import check, evaluation, experiments, members, validation
from train.cli.stage import cli
from train.core.memory import keep_freed_memory

# Importing the modules registers their commands.
__all__ = ["check", "cli", "evaluation", "experiments", "main", "members", "validation"]


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
