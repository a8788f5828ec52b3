"""One run at a time in a folder: a lock that the kernel lets go of however the process ends.

flock, not a process id in a file: in a container every first process has the same one.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from infer.errors import HeldError

LOCK = ".lock"
MODE = 0o640  # patients' data: of everything in the folder
PATIENCE = 3.0  # seconds; a dry run holds the folder for a moment, which must not cost a night's run


class Lock:
    """The lock that this run holds, as long as nobody removes its file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def check(self) -> None:
        """Make sure that no other run can have taken the folder.

        Raises:
            OSError: the lock's file was removed or replaced.
        """
        if not os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
            raise FileNotFoundError(None, "was taken away while the run held it", str(self._path))

    def holds(self) -> bool:
        """Whether `check` finds nothing."""
        try:
            self.check()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def held(folder: Path, *, leave: bool = False) -> Iterator[Lock]:
    """Hold a folder against other runs; the lock's file is gone afterwards.

    Args:
        leave: for a dry run, which leaves the folder as it was: a lock's file that a killed run left stays.

    Raises:
        HeldError: another run holds it.
        OSError: the folder cannot be made or written, or its file system cannot lock.
    """
    path = folder / LOCK
    descriptor, was_there = _locked(path)
    lock = Lock(path, descriptor)
    try:
        yield lock
    finally:
        if (
            not (leave and was_there) and lock.holds()
        ):  # else someone deleted the folder, and the file of this name is another run's
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(descriptor)


def _locked(path: Path) -> tuple[int, bool]:
    """The lock's file, opened and locked, and whether it was there before."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)  # again: the dry run that made it may have held and removed it
        was_there = os.path.lexists(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        try:
            _flock(descriptor, path.parent)
            # The run before may have removed the file between our opening and our locking: then ours has no name.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor, was_there
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise HeldError(
                    f"{folder}: another run holds it. Wait for it to end, or choose another folder"
                ) from error
        else:
            return
        time.sleep(0.05)
