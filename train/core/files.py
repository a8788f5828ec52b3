"""Files written whole or not at all, and on the disk before they get their names: every file of a run folder."""

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
    """Write a file under another name, which becomes its own when the block ends well.

    Yields:
        The name to write to. Two processes must not do this at once: see `held`.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        with part.open("rb") as file:
            sync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):  # it must not hide what went wrong
            part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a small file."""
    with written_whole(path) as part:
        part.write_text(text)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV."""
    with written_whole(path) as part:
        table.to_csv(part, index=False)


@contextlib.contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock, which the kernel releases however the process ends. A file system without locks gives none.

    Args:
        path: of the lock's file, which is made and stays.
        wait: for another process that holds it.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in CANNOT_LOCK:
                raise
        yield
