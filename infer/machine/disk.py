"""Syncs files and folders to the disk, if the file system can."""

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# Folders can only be opened for reading. Some folders refuse this, and some file systems need more for a sync.
CANNOT_SYNC_FOLDERS = CANNOT_SYNC | {errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM}


def sync(file: int | Path) -> str:
    """Sync a file's bytes or a folder's entries to the disk, if this file system can.

    Args:
        file: the descriptor of a file, or the path of a folder.

    Returns:
        What this file system cannot sync, and why; empty if the sync succeeded.

    Raises:
        OSError: the disk is full or not available.
    """
    try:
        if isinstance(file, int):
            os.fsync(file)
        else:
            _sync_folder(file)
    except OSError as error:
        is_file = isinstance(file, int)
        if error.errno not in (CANNOT_SYNC if is_file else CANNOT_SYNC_FOLDERS):
            raise
        return f"{'files' if is_file else 'folders'} ({error.strerror})"
    return ""


def make_folder(folder: Path) -> set[str]:
    """Make a folder, and those above it, if there is none; their names are on the disk then.

    Returns:
        What `sync` returned.

    Raises:
        OSError: it cannot be made, or is a file.
    """
    new = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    folder.mkdir(parents=True, exist_ok=True)
    return {sync(path.parent) for path in new}


def replace_file(path: Path, text: str, mode: int, *, for_all: bool = False) -> None:
    """Write a small file whole, and give it its name once it is on the disk: whoever reads sees the old or the new one.

    Args:
        text: may hold file names that are not UTF-8.
        mode: its rights, less what the umask takes away.
        for_all: the umask takes nothing away: another user's program reads it.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)  # another user's can be removed, but not overwritten
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            if for_all:
                os.fchmod(descriptor, mode)
            sync(descriptor)
        part.rename(path)
        sync(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def sync_note(unsynced: Iterable[str]) -> str:
    """A sentence about everything that `sync` returned, for run.log and run.json; empty if all was synced."""
    what = sorted({one for one in unsynced if one})
    if not what:
        return ""
    return (
        f"OUT's file system cannot sync {' and '.join(what)}. "
        "Results written shortly before a power failure may be lost"
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
