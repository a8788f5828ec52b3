"""The expected errors, each with the exit code that it ends the program with.

The codes are a contract with whatever schedules the program; infer/README.md lists them.
"""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import PurePath


class LymphoError(Exception):
    """Base of every expected failure. The message names the file, row or patient, and what to do."""

    exit_code = 1


class WorkerError(LymphoError):
    """A decoding worker process cannot be started."""


NO_THREAD = "can't start new thread"  # Python's message; the exception is a plain RuntimeError


class ThreadError(LymphoError):
    """A thread cannot be started. The system does not say for which of three reasons; the message names them all."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"a thread cannot be started ({why}). The limit on processes is too low (--pids-limit, ulimit -u), memory "
            "is short, or Docker is older than 20.10.10 and its seccomp profile forbids clone3. Raise the limit, use "
            "fewer --threads, give the run more memory, or update Docker"
        )


class UsageError(LymphoError):
    """Options that do not fit each other or the data."""

    exit_code = 2


class CohortError(LymphoError):
    """The folder of patients or its table cannot be read, or is empty."""

    exit_code = 4


class BundleError(LymphoError):
    """The bundle is damaged, incomplete or too new, or fails its self-test."""

    exit_code = 5


class DeviceError(LymphoError):
    """The requested device is not available, or failed during the run."""

    exit_code = 6


class DeviceMemoryError(DeviceError):
    """The device has too little memory for a batch."""


class OutputError(LymphoError):
    """The results cannot be written."""

    exit_code = 7


class HeldError(LymphoError):
    """Another run has locked the output folder, or the history."""

    exit_code = 8


def ending_of(error: BaseException) -> tuple[int, str]:
    """The exit code that an exception ends the program with, and the message for people.

    Args:
        error: a SystemExit with a signal's code; an expected error; or a bug, whose text may hold a patient's values.
    """
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code, EXIT_MEANING.get(error.code, "")
    if isinstance(error, MemoryError):
        return 1, (
            f"out of memory {error}. Give the run more memory, or use fewer --threads, fewer --workers or a smaller "
            "--batch-size"
        )
    if isinstance(error, RuntimeError) and str(error) == NO_THREAD:
        return ThreadError.exit_code, str(ThreadError(NO_THREAD))
    if isinstance(error, LymphoError):
        return error.exit_code, str(error)
    return 1, f"a bug ({type(error).__name__}{_place(error)}): report it, with the traceback if there is one"


def _place(error: BaseException) -> str:
    """Where a bug showed itself, as `, networks.py line 88`: an actor has no other traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return f", {PurePath(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""


@contextlib.contextmanager
def tables_are_complete(do: str) -> Iterator[None]:
    """Let an error in the block say that the results are in place, so that nobody scores everybody again.

    Args:
        do: what is missing, or what to do for it.
    """
    try:
        yield
    except (LymphoError, MemoryError) as error:
        error.args = (f"{error}. The tables are complete: {do}".removeprefix(". "),)
        raise


FINISHED_WITH_FAILURES = 3
EXIT_MEANING = {
    0: "finished",
    1: "something that no other code covers: a thread or process cannot be started, memory is short, or a bug",
    2: "wrong usage",
    FINISHED_WITH_FAILURES: "finished, but a patient failed, no patient was scored, too many were refused, or --drift "
    "fail found drift",
    4: "the cohort cannot be read, or is empty",
    5: "the bundle is damaged, incomplete or too new, or fails its self-test on this machine",
    6: "the requested device is not available, or failed during the run",
    7: "the results cannot be written",
    8: "another run is using the output folder or the history",
    130: "stopped by SIGINT",
    137: "killed from outside, usually for too little memory",
    143: "stopped by SIGTERM",
}
