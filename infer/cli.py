"""The command line of the nightly job: parse, call, exit. README.md lists the exit codes."""

import contextlib
import datetime as dt
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from infer import __version__
from infer.errors import NO_THREAD, LymphoError, ThreadError

OPERATING_POINTS = ("balanced", "sensitivity-95", "sensitivity-98")
# Not looked at by click, for which every path that is wrong is wrong usage; each has an exit code of its own.
PATH = click.Path(path_type=Path, readable=False)
INTERRUPTED, TERMINATED = 130, 143


@click.command(context_settings={"show_default": True})
@click.argument("patients", type=PATH)
@click.argument("out", type=PATH)
@click.option("--annotations", type=PATH, help="The table, if it is not in PATIENTS.")
@click.option("--bundle", type=PATH, help="Folder of the model.  [default: the one that ships]")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", help="Where the networks run.")
@click.option("--operating-point", type=click.Choice(OPERATING_POINTS), default="balanced", help="What decides.")
@click.option(
    "--reference-date",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Ages are taken at SAMPLE_DATE, without it at this day.  [default: today]",
)
@click.option("--date-format", help="strptime format of all dates in the table, for example %d/%m/%Y; or iso.")
@click.option("--sample-date-format", help="The same for SAMPLE_DATE alone.")
@click.option("--sex-codes", help="What the codes in GENDER mean, for example H=male,M=female.")
@click.option(
    "--max-refused", type=click.FloatRange(0, 1), default=0.5, help="Exit 3 if a larger share of patients is refused."
)
@click.option(
    "--batch-size", type=click.IntRange(1, 1024), help="Pictures a batch.  [default: 8 on a processor, 256 on a GPU]"
)
@click.option("--workers", type=click.IntRange(0), default=0, help="Decoding processes; 0: what suits the device.")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Processors for networks and decoding.  [default: all that the run may use]",
)
@click.option(
    "--settle",
    type=click.FloatRange(0, 86_400),
    default=0,
    metavar="SECONDS",
    help="A patient whose folder changed less than that ago fails: it may still be copied.",
)
@click.option("--dry-run", is_flag=True, help="Check bundle, table, pictures, device and OUT; score and write nothing.")
@click.option("--fresh", is_flag=True, help="Start over where a run that was cut off left OUT unfinished.")
@click.version_option(__version__, prog_name="lympho")
def command(reference_date: dt.datetime | None, bundle: Path | None, **options: Any) -> int:
    """Score the folder PATIENTS and write predictions.csv, images.csv, run.json and run.log to OUT.

    PATIENTS holds clinical_annotation.csv and one folder of pictures a patient. Not a medical device.
    """
    from infer.bundle.load import REFERENCE
    from infer.options import Options
    from infer.run import run

    date = reference_date.date() if reference_date else None
    return run(Options(reference_date=date, bundle=bundle or REFERENCE, **options))


PATIENCE = 10.0  # seconds for tidying up after a signal; one that comes later ends the process at once


def _stop_with(code: int) -> Callable[..., None]:
    """A signal's handler: ends the run in good order. A second one must not cut short the tidying up."""

    def handler(*_: object) -> None:
        first = time.monotonic()

        def again(*_: object) -> None:
            if time.monotonic() - first > PATIENCE:  # stuck, say in a dead network folder; the journal is safe
                os._exit(code)

        signal.signal(signal.SIGTERM, again)
        signal.signal(signal.SIGINT, again)
        sys.exit(code)

    return handler


def main() -> None:
    """Run the command line and exit with the code that says how it ended."""
    _occupy_standard_streams()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _stop_with(TERMINATED))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the caller wants it ignored
        signal.signal(signal.SIGINT, _stop_with(INTERRUPTED))
    code: int | str | None
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        code = error.exit_code
        with contextlib.suppress(OSError):
            error.show()
    except click.Abort:
        code = INTERRUPTED
    except LymphoError as error:
        code = error.exit_code
        _say(str(error))
    except MemoryError as error:
        code = 1
        _say(f"too little memory {error}. Give the run more, or fewer --threads, --workers or pictures a --batch-size")
    except RuntimeError as error:
        if str(error) != NO_THREAD:
            raise
        code = ThreadError.exit_code
        _say(str(ThreadError(NO_THREAD)))
    except SystemExit as end:
        code = end.code
    _let_go_of_output()
    sys.exit(code)


def _occupy_standard_streams() -> None:
    """Else the next file or pipe to be opened takes the place of a closed one, and gets what a library prints there."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free: this one


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # a log on a full disk, or nobody reading, must not change the exit code
        click.echo(f"Error: {message}", err=True)


def _let_go_of_output() -> None:
    """Python flushes these once more at the end, and would exit with a code of its own where that fails."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
