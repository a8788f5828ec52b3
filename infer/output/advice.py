"""What to do about an output folder that cannot be written: whose it is, whether it is there, whether it is full."""

import errno
import os
import stat
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM)


def advice(folder: Path, number: int | None) -> str:
    """A sentence for a system error, or nothing.

    Args:
        folder: OUT.
        number: errno.
    """
    if number in FULL:
        return "Make room there, or choose another folder"
    if number == errno.EROFS:
        if _status(folder):
            return "It is mounted read-only. Mount it so that it can be written (in Docker without :ro)"
        return "It does not exist, and nothing can be created there. Is its volume mounted (docker run -v HOST:OUT)?"
    if number in FORBIDDEN:
        return _whose(folder)
    return ""


def _whose(folder: Path) -> str:
    """Who may write there, or in the next folder above that can be seen, and who this run is."""
    for path in (folder, *folder.parents):
        if found := _status(path):
            return (
                f"This run is user {os.geteuid()}; {path} belongs to user {found.st_uid}, group {found.st_gid}, mode "
                f"{stat.S_IMODE(found.st_mode):o}. Run as that user (docker run --user {found.st_uid}:{found.st_gid}), "
                "or give this one the right to write there"
            )
    return ""


def _status(path: Path) -> os.stat_result | None:
    """None if it does not exist, or a folder above may not be searched."""
    try:
        return path.stat()
    except OSError:
        return None
