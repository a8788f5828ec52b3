"""`python -m export RUN BUNDLE`, `python -m export adapt BUNDLE VALIDATION NEWBUNDLE`."""

import logging
import sys
from collections.abc import Sequence

import click

from export.cli import adapt_command, export_command
from infer.errors import LymphoError, UsageError
from infer.machine.encoding import use_utf8

ADAPT = "adapt"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit with 0, 1 or 2."""
    logging.basicConfig(level=logging.WARNING)
    asked = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if asked[:1] == [ADAPT]:
            adapt_command.main(asked[1:], prog_name=f"python -m export {ADAPT}")
        else:
            export_command.main(asked, prog_name="python -m export")
    except LymphoError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(UsageError.exit_code if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    use_utf8()
    main()
