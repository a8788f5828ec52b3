"""One run at a time in a folder: a lock that the kernel lets go of however the process ends.

flock, not a process id in a file: in a container every first process has the same one.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from infer.errors import HeldError

LOCK = ".lock"
MODE = 0o640  # patients' data: of everything in the folder


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
def held(folder: Path) -> Iterator[Lock]:
    """Hold a folder, which must exist, against other runs; the lock's file is gone afterwards.

    Raises:
        HeldError: another run holds it.
        OSError: the folder cannot be written, or its file system cannot lock.
    """
    path = folder / LOCK
    descriptor = _locked(path)
    lock = Lock(path, descriptor)
    try:
        yield lock
    finally:
        if lock.holds():  # else someone deleted the folder, and the file of this name is another run's
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(descriptor)


def check_free(folder: Path) -> None:
    """For a dry run: would `held` get the folder now? Leaves nothing behind.

    Raises:
        HeldError: another run holds it.
        OSError: the lock's file is there and cannot be written.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            _flock(descriptor, folder)
        finally:
            os.close(descriptor)


def _locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        try:
            _flock(descriptor, path.parent)
            # The run before may have removed the file between our opening and our locking: then ours has no name.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise HeldError(f"{folder}: another run holds it. Wait for it to end, or choose another folder") from error
