"""What can go wrong, as a small tree: each error knows the exit code it ends the program with.

The codes are a contract with whatever schedules the program; README.md lists them.
"""


class LymphoError(Exception):
    """Base of every expected failure. The message names the file, row or patient, and what to do."""

    exit_code = 1


class WorkerError(LymphoError):
    """A process that decodes pictures cannot be started."""


NO_THREAD = "can't start new thread"  # Python's own text; its exception is a RuntimeError like any other


class ThreadError(LymphoError):
    """A thread cannot be started. The system does not say which of three reasons it has: the message names them all."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"a thread cannot be started ({why}). The limit on processes is too low (--pids-limit, ulimit -u), memory "
            "is short, or Docker is older than 20.10.10 and its seccomp profile forbids clone3. Raise the limit, use "
            "fewer --threads, give the run more memory, or update Docker"
        )


class UsageError(LymphoError):
    """Options that do not fit together or do not fit the data."""

    exit_code = 2


class CohortError(LymphoError):
    """The folder of patients or its table cannot be read, or is empty."""

    exit_code = 4


class BundleError(LymphoError):
    """The bundle is damaged, incomplete, too new, or does not compute what it says it computes."""

    exit_code = 5


class DeviceError(LymphoError):
    """The device asked for is not there, or gave up."""

    exit_code = 6


class DeviceMemoryError(DeviceError):
    """The device has too little memory for a batch."""


class OutputError(LymphoError):
    """The results cannot be written."""

    exit_code = 7


class HeldError(LymphoError):
    """Another run holds the output folder."""

    exit_code = 8


FINISHED_WITH_FAILURES = 3  # finished, but a patient failed, or none was scored, or too many were refused
EXIT_MEANING = {
    0: "finished",
    1: "something went wrong that no other code covers: a thread or process could not be started, memory is short, or a bug",
    2: "wrong usage",
    FINISHED_WITH_FAILURES: "finished, but a patient failed, or none was scored, or too many were refused",
    4: "the cohort cannot be read, or is empty",
    5: "the bundle is bad",
    6: "the device asked for is not there, or gave up",
    7: "the results cannot be written",
    8: "another run holds the output folder",
    130: "stopped by SIGINT",
    143: "stopped by SIGTERM",
}
