"""Atomic writing of all files in a run folder: data reaches the disk before the file gets its final name."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from infer.machine.disk import sync

CANNOT_LOCK = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENOLCK})


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file atomically: to a temporary name, renamed when the block ends without an error.

    Yields:
        The temporary path to write to. Two processes must not do this at the same time: see `locked`.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        with part.open("rb") as file:
            sync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):  # a failing clean-up must not hide the original error
            part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with written_whole(path) as part:
        part.write_text(text)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically."""
    with written_whole(path) as part:
        table.to_csv(part, index=False)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock. The kernel releases it however the process ends. No locking on file systems without lock support.

    Args:
        path: the lock file; it is created and not deleted.
        wait: whether to wait while another process holds the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is false.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in CANNOT_LOCK:
                raise
        yield
