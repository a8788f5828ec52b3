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
        folder: OUT, or a file in it.
        number: errno.
    """
    if number in FULL:
        return "Make room there, or choose another folder"
    if number == errno.EROFS:
        if folder.exists():
            return "It is mounted read-only. Mount it so that it can be written (in Docker without :ro)"
        return "It does not exist, and nothing can be created there. Is its volume mounted (docker run -v HOST:OUT)?"
    if number in FORBIDDEN:
        return _whose(folder)
    return ""


def _whose(folder: Path) -> str:
    """Who may write there, and who this run is."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        found = there.stat()
    except OSError:
        return ""
    return (
        f"This run is user {os.geteuid()}; {there} belongs to user {found.st_uid}, group {found.st_gid}, mode "
        f"{stat.S_IMODE(found.st_mode):o}. Run as that user (docker run --user {found.st_uid}:{found.st_gid}), or give "
        "this one the right to write there"
    )
