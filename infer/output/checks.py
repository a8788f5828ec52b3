"""Tries, before anything is scored, what a run does in the output folder: create, write, sync, rename, remove files.

Permissions are not enough: root may write everywhere, a share's server has its own rules, and a file on a share that
somebody has open in a spreadsheet looks like any other.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from infer.errors import OutputError
from infer.machine.disk import sync
from infer.machine.locks import MODE
from infer.output.kinds import FOLDERS
from infer.output.names import RECORD

LOG = logging.getLogger("lympho")
PROBE = ".probe"
PAUSE = 0.5  # seconds; on a share, a virus scanner may open a file just after it was renamed
GET_FLAGS, APPEND_ONLY = 0x80086601, 0x20  # FS_IOC_GETFLAGS and FS_APPEND_FL of linux/fs.h, 64 bits


def check_not_append_only(folder: Path) -> None:
    """Make sure that the folder is not append-only. This reads a flag, because a test file could not be removed again.

    Raises:
        OutputError: files can only be added to it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, GET_FLAGS, bytes(8)))
    except OSError:  # the file system has no such flags
        return
    finally:
        os.close(descriptor)
    if flags & APPEND_ONLY:
        raise OutputError(f"{folder}: is append-only: files created there cannot be removed. Choose another folder")


def probe(folder: Path) -> set[str]:
    """Create, write, sync, rename and remove a file.

    Returns:
        What `sync` returned.

    Raises:
        OutputError: a file can be created, but not renamed and removed.
        OSError: no file can be created, or there is no space for one byte.
    """
    made, renamed = folder / PROBE, folder / f"{PROBE}.renamed"
    for path in (made, renamed):  # left by a run that was killed here, perhaps another user's
        path.unlink(missing_ok=True)
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            os.write(descriptor, b"\n")
            unsynced = sync(descriptor)
        finally:
            os.close(descriptor)
        try:
            made.rename(renamed)
            renamed.unlink()
        except OSError as error:
            raise OutputError(
                f"{folder}: a file can be created there, but not renamed and removed ({error.strerror}). "
                "Choose another folder"
            ) from error
        return {unsynced, sync(folder)}
    finally:
        for path in (made, renamed):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def check_writing(path: Path) -> None:
    """Make sure that a file of an unfinished run can be written. It is only opened; a missing file is no error.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(
            f"{path}: belongs to an unfinished run and cannot be written ({error.strerror}). "
            "Run as the user who started it, or choose another folder"
        ) from error


def check_removable(folder: Path, names: Sequence[str]) -> None:
    """Make sure that these files, if they exist, can be renamed and removed. All have their names again afterwards.

    Each is set aside under a hidden name: renaming a file to its own name would do nothing and prove nothing. They are
    set aside in the order of the names and restored in reverse order. If the process is killed in between, `put_back`
    restores them.

    Raises:
        OutputError: one cannot be removed.
    """
    try:
        for name in names:
            _set_aside(folder / name)
            if name == RECORD:  # a power failure could hide a table that it vouches for, and not itself
                sync(folder)
    finally:
        try:
            put_back(folder, names)
        except OutputError:
            time.sleep(PAUSE)
            put_back(folder, names)
        except BaseException:  # a signal; a second signal does not raise again
            put_back(folder, names)
            raise


def put_back(folder: Path, names: Sequence[str]) -> list[str]:
    """Rename files that `check_removable` set aside back to their names, the last name first.

    Returns:
        The names.

    Raises:
        OutputError: one cannot be renamed, or another file now has its name.
    """
    back = []
    for name in reversed(names):
        path = folder / name
        hidden = aside(path)
        if not exists(hidden):
            continue
        if exists(path):
            raise OutputError(
                f"{hidden}: is an earlier {name} that a killed run set aside, and a new {name} exists. "
                "Remove one of them, or choose another folder"
            )
        try:
            if name == RECORD:
                sync(folder)
            hidden.rename(path)
        except OSError as error:
            raise OutputError(
                f"{hidden}: is an earlier {name} that cannot be renamed back ({error.strerror}). "
                "The next run tries again"
            ) from error
        back.append(name)
    return back


def aside(path: Path) -> Path:
    """The path to which `check_removable` sets a file aside."""
    return path.with_name(f".{path.name}.aside")


def exists(path: Path) -> bool:
    """Like os.path.lexists, but raises an error if the answer cannot be determined.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _set_aside(path: Path) -> None:
    try:
        if (
            stat.S_ISDIR(path.lstat().st_mode) and path.name not in FOLDERS
        ):  # can be renamed, but not removed like a file
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.rename(aside(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(
            f"{path}: must be replaced by the new results but cannot be removed ({error.strerror}). If it is open in a "
            "spreadsheet, close it; if it is protected or belongs to another user, have it removed; or choose another "
            "folder. Nothing was changed"
        ) from error
