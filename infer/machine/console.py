"""Runs a command of this program: signals, errors and streams become its exit code. infer/README.md lists the codes."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

import click

from infer.errors import NO_THREAD, LymphoError, ending_of

INTERRUPTED, TERMINATED = 130, 143
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


def run_command(command: click.Command) -> None:
    """Run a command with this process's arguments and exit with its exit code."""
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
    except (LymphoError, MemoryError) as error:
        code, message = ending_of(error)
        _print_error(message)
    except RuntimeError as error:
        if str(error) != NO_THREAD:
            raise
        code, message = ending_of(error)
        _print_error(message)
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
