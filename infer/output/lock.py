"""One run at a time per folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from infer.errors import HeldError
from infer.machine.disk import make_folder
from infer.machine.locks import MODE, locked_within

LOCK = ".lock"
PATIENCE = 3.0  # seconds; a dry run locks the folder briefly, which must not fail a nightly run


class Lock:
    """The lock held by this run, valid until somebody removes its file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def check(self) -> None:
        """Make sure that no other run can have locked the folder.

        Raises:
            OSError: the lock's file was removed or replaced.
        """
        if not os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
            raise FileNotFoundError(None, "was removed or replaced during the run", str(self._path))

    def holds(self) -> bool:
        """Whether the lock is still valid."""
        try:
            self.check()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def held(folder: Path, *, leave: bool = False) -> Iterator[Lock]:
    """Lock a folder against other runs; the lock file is removed afterwards.

    Args:
        leave: for a dry run, which leaves the folder as it was: the lock file of a killed run is not removed.

    Raises:
        HeldError: another run has locked it.
        OSError: the folder cannot be created or written, or its file system does not support locks.
    """
    path = folder / LOCK
    descriptor, was_there = _locked(path)
    lock = Lock(path, descriptor)
    try:
        yield lock
    finally:
        # If the lock is no longer valid, the folder was deleted and a file of this name belongs to another run.
        if not (leave and was_there) and lock.holds():
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(descriptor)


def check_free(folder: Path) -> None:
    """Make sure that no other run holds a folder, before anything else is read: it would only be told in the end.

    Raises:
        HeldError: another run holds it.
    """
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # there is none; or it cannot be opened, which is said when the folder is tried
        return
    try:
        free = locked_within(descriptor, PATIENCE)
    except OSError:  # no locks there, which is said when the folder is tried
        free = True
    finally:
        os.close(descriptor)
    if not free:
        raise _held(folder)


def _held(folder: Path) -> HeldError:
    return HeldError(f"{folder}: another run holds it. Wait for it to end, or choose another folder")


def _locked(path: Path) -> tuple[int, bool]:
    """The lock file, opened and locked, and whether it existed before."""
    while True:
        make_folder(path.parent)  # in the loop: a dry run that created the folder may have removed it
        was_there = os.path.lexists(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        try:
            if not locked_within(descriptor, PATIENCE):
                raise _held(path.parent)
            # Another run may have removed the file between our open and our flock: then our file has no name.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor, was_there
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
