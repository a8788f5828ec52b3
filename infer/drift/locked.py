"""A file that several runs share: opened by one at a time.

The kernel releases the lock however a process ends.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from infer.errors import HeldError, UsageError

MODE = 0o640  # less what the umask takes away, as all that a run writes
PATIENCE = 30.0  # seconds; a run holds the file for as long as it takes to read it and to append a line


@contextlib.contextmanager
def locked(path: Path, flags: int) -> Iterator[int]:
    """The open file, to append to, locked. Yields its descriptor.

    Raises:
        HeldError: another run holds it.
        UsageError: it is no file, but a folder or a device.
        OSError: it cannot be opened, or its file system does not support locks.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        descriptor = os.open(path, flags | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, MODE)
        try:
            mine = _try_lock(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if mine:
            break
        os.close(descriptor)
        if time.monotonic() >= deadline:
            raise HeldError(f"{path}: another run holds it. Start this run again when that has ended")
        time.sleep(0.01)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(path: Path, descriptor: int) -> bool:
    """Whether the file could be locked, and is still the file of this name."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise UsageError(f"--history {path}: is not a file. Give another one")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
