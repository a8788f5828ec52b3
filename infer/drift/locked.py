"""A file that several runs share: opened by one at a time."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from infer.errors import HeldError, UsageError
from infer.machine.locks import MODE, locked_within

PATIENCE = 30.0  # seconds; a run holds the file for as long as it takes to read it and to append a line


@contextlib.contextmanager
def locked(path: Path, flags: int) -> Iterator[int]:
    """The open file, to append to, locked. Yields its descriptor.

    Raises:
        HeldError: another run holds it.
        UsageError: it is no file, but a folder or a device.
        OSError: it cannot be opened, or its file system does not support locks.
    """
    while True:
        descriptor = os.open(path, flags | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, MODE)
        with contextlib.closing(os.fdopen(descriptor, "rb", buffering=0)):
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"--history {path}: is not a file. Give another one")
            if not locked_within(descriptor, PATIENCE):
                raise HeldError(f"{path}: another run holds it. Start this run again when that has ended")
            if _has_name(descriptor, path):
                yield descriptor
                return


def _has_name(descriptor: int, path: Path) -> bool:
    """Whether the file is still the one of this name: another run may have replaced it while this one waited."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
