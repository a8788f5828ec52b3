"""The command line of the nightly job: parse options, run, exit. infer/README.md lists the exit codes."""

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

# click does not check these paths: it would report every bad path as wrong usage, but each has its own exit code.
PATH = click.Path(path_type=Path, readable=False)
INTERRUPTED, TERMINATED = 130, 143


@click.command(context_settings={"show_default": True})
@click.argument("patients", type=PATH)
@click.argument("out", type=PATH)
@click.option("--annotations", type=PATH, help="Clinical table, if it is not in PATIENTS.")
@click.option("--bundle", type=PATH, help="Folder of the model bundle.  [default: the bundle shipped with lympho]")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", help="Where the networks run.")
@click.option("--operating-point", default="balanced", help="Decision thresholds: one of the names in the bundle.")
@click.option(
    "--reference-date",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Date at which ages are taken for patients without SAMPLE_DATE.  [default: today]",
)
@click.option("--date-format", help="strptime format of all dates in the table, e.g. %d/%m/%Y, or iso.")
@click.option("--sample-date-format", help="The same, for SAMPLE_DATE only.")
@click.option("--sex-codes", help="Meaning of the codes in GENDER, e.g. H=male,M=female.")
@click.option(
    "--pixel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="UM",
    help="Micrometres that a pixel of these pictures covers, for another camera than in training.",
)
@click.option(
    "--max-refused",
    type=click.FloatRange(0, 1),
    default=0.5,
    help="Exit with code 3 if a larger share of patients is refused.",
)
@click.option(
    "--batch-size", type=click.IntRange(1, 1024), help="Pictures per batch.  [default: 8 on a CPU, 256 on a GPU]"
)
@click.option(
    "--workers", type=click.IntRange(0), default=0, help="Worker processes that decode; 0: chosen to suit the device."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="CPU cores for networks and decoding.  [default: all that the run may use]",
)
@click.option(
    "--settle",
    type=click.FloatRange(0, 86_400),
    default=0,
    metavar="SECONDS",
    help="Fail a patient whose folder changed less than SECONDS ago: copying may not be finished.",
)
@click.option("--dry-run", is_flag=True, help="Check bundle, table, pictures, device and OUT; score and write nothing.")
@click.option("--fresh", is_flag=True, help="Start over instead of resuming an interrupted run in OUT.")
@click.version_option(__version__, prog_name="lympho")
def command(reference_date: dt.datetime | None, bundle: Path | None, **options: Any) -> int:
    """Score the patients in folder PATIENTS and write predictions.csv, images.csv, run.json and run.log to OUT.

    PATIENTS holds clinical_annotation.csv and one folder of pictures per patient. Not a medical device.
    """
    from infer.bundle.load import REFERENCE
    from infer.options import Options
    from infer.run import run

    date = reference_date.date() if reference_date else None
    return run(Options(reference_date=date, bundle=bundle or REFERENCE, **options))


PATIENCE = 10.0  # seconds to clean up after a signal; a signal after that ends the process immediately


def _stop_with(code: int) -> Callable[..., None]:
    """A signal handler that ends the run cleanly. A second signal must not interrupt the cleanup."""

    def handler(*_: object) -> None:
        first = time.monotonic()

        def again(*_: object) -> None:
            if time.monotonic() - first > PATIENCE:  # stuck, e.g. on a dead network share; the journal is safe
                os._exit(code)

        signal.signal(signal.SIGTERM, again)
        signal.signal(signal.SIGINT, again)
        sys.exit(code)

    return handler


def main() -> None:
    """Run the command line and exit with the run's exit code."""
    _occupy_standard_streams()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _stop_with(TERMINATED))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise the caller wants SIGINT ignored
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
        _print_error(str(error))
    except MemoryError as error:
        code = 1
        _print_error(
            f"out of memory {error}. Give the run more memory, or use fewer --threads, fewer --workers or a smaller "
            "--batch-size"
        )
    except RuntimeError as error:
        if str(error) != NO_THREAD:
            raise
        code = ThreadError.exit_code
        _print_error(str(ThreadError(NO_THREAD)))
    except SystemExit as end:
        code = end.code
    _flush_output()
    sys.exit(code)


def _occupy_standard_streams() -> None:
    """Otherwise the next file opened gets a closed stream's descriptor, and with it what a library prints there."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this one


def _print_error(message: str) -> None:
    with contextlib.suppress(OSError):  # a full disk or a closed pipe must not change the exit code
        click.echo(f"Error: {message}", err=True)


def _flush_output() -> None:
    """Python flushes these again at exit, and would exit with its own code if that fails."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
