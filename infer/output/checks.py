"""What a run does in the output folder, tried before anything is scored: make, write, sync, rename and remove files.

Permissions do not tell: root may write everywhere, a share refuses what its server refuses, and a file that somebody
has open in a spreadsheet there looks like any other.
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
from infer.output.lock import MODE

LOG = logging.getLogger("lympho")
PROBE = ".probe"
PAUSE = 0.5  # seconds; on a share, a virus scanner may have a file open just after it was renamed
GET_FLAGS, APPEND_ONLY = 0x80086601, 0x20  # FS_IOC_GETFLAGS and FS_APPEND_FL of linux/fs.h, 64 bits


def check_not_append_only(folder: Path) -> None:
    """Make sure that the folder is not append-only. It is asked and not tried: what was tried there would stay there.

    Raises:
        OutputError: files can only be added to it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, GET_FLAGS, bytes(8)))
    except OSError:  # a file system without such flags
        return
    finally:
        os.close(descriptor)
    if flags & APPEND_ONLY:
        raise OutputError(f"{folder}: is append-only: what is made there cannot be removed. Choose another folder")


def probe(folder: Path) -> set[str]:
    """Make, write, sync, rename and remove a file.

    Returns:
        What `sync` returned.

    Raises:
        OutputError: a file can be made, but not renamed and removed again.
        OSError: no file can be made, or the first byte does not fit.
    """
    made, renamed = folder / PROBE, folder / f"{PROBE}.renamed"
    for path in (made, renamed):  # of a start that was killed just here, perhaps another user's
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
                f"{folder}: a file can be made there, but not renamed and removed again ({error.strerror}). "
                "Choose another folder"
            ) from error
        return {unsynced, sync(folder)}
    finally:
        for path in (made, renamed):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def check_writing(path: Path) -> None:
    """Make sure that a file of an unfinished run can be written on. It is opened alone; a missing one is no error.

    Raises:
        OutputError: it cannot.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(
            f"{path}: belongs to an unfinished run and cannot be written ({error.strerror}). "
            "Start as the user that began it, or choose another folder"
        ) from error


def check_removable(folder: Path, names: Sequence[str]) -> None:
    """Make sure that these files, where they exist, can be renamed and removed. All have their names afterwards.

    Each is set aside under a hidden name: renaming a file to its own name would do nothing and prove nothing. They go
    in the order of the names and come back in the reverse order. If the process is killed in between, `put_back` finds
    them.

    Raises:
        OutputError: one cannot be removed.
    """
    try:
        for name in names:
            _set_aside(folder / name)
    finally:
        try:
            put_back(folder, names)
        except OutputError:
            time.sleep(PAUSE)
            put_back(folder, names)
        except BaseException:  # a signal; a second one does not raise again
            put_back(folder, names)
            raise


def put_back(folder: Path, names: Sequence[str]) -> list[str]:
    """Give files that `check_removable` set aside their names back, the last name first.

    Returns:
        The names.

    Raises:
        OutputError: one cannot be renamed, or another file has its name by now.
    """
    back = []
    for name in reversed(names):
        path = folder / name
        hidden = aside(path)
        if not exists(hidden):
            continue
        if exists(path):
            raise OutputError(
                f"{hidden}: is an earlier {name}, set aside by a start that was killed, and there is another {name} by "
                "now. Remove one of them, or choose another folder"
            )
        try:
            hidden.rename(path)
        except OSError as error:
            raise OutputError(
                f"{hidden}: is an earlier {name} that cannot get its name back ({error.strerror}). "
                "The next start tries again"
            ) from error
        back.append(name)
    return back


def aside(path: Path) -> Path:
    """Where `check_removable` sets a file aside."""
    return path.with_name(f".{path.name}.aside")


def exists(path: Path) -> bool:
    """Unlike os.path.lexists, says so where this cannot be found out.

    Raises:
        OSError: the folder cannot be looked into.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _set_aside(path: Path) -> None:
    try:
        if stat.S_ISDIR(path.lstat().st_mode):  # which can be renamed, but not removed as a file is
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.rename(aside(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(
            f"{path}: is in the way of the new results and cannot be removed ({error.strerror}). If it is open in a "
            "spreadsheet, close it there; if it is protected or another user's, have it removed; or choose another "
            "folder. Nothing was changed"
        ) from error
