"""The folder of evidence pages in OUT, `report`: it appears whole or not at all, and never beside another run's tables.

Pages are written to a hidden folder that gets its name once all are safely on the disk. Only files that have a page's
name are ever removed.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from infer.errors import OutputError
from infer.machine.disk import sync
from infer.machine.locks import MODE

PAGES = "report"
PART, OLD, EARLIER = ".report.part", ".report.old", ".report.earlier"  # written, removed; hidden while tables change
PAGE = re.compile(r"(index|by-id)(-\d+)?\.html|p\d+\.html")
FOLDER_MODE = 0o750


class Pages:
    """The hidden folder that pages are written to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, text: str) -> None:
        """Write a page.

        Args:
            name: of the file, one that PAGE knows.

        Raises:
            OSError: the disk is full or not available.
        """
        if not PAGE.fullmatch(name):
            raise ValueError(f"{name}: is no page's name")
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)


@contextlib.contextmanager
def new_pages(out: Path) -> Iterator[Pages]:
    """Write all pages: they get their place when the block ends, and are removed if it fails.

    Args:
        out: locked by the caller.

    Raises:
        OutputError: a file that is no page is in the way.
        OSError: the disk is full or not available.
    """
    check_pages(out)
    part = out / PART
    for left in (part, out / OLD):  # by a run that was killed
        _remove(left)
    part.mkdir(FOLDER_MODE)
    try:
        yield Pages(part)
        # Late: by now the system has written most of them, and a sync of each on its own would wait for the disk.
        for path in sorted(part.iterdir()):
            _sync_file(path)
        sync(part)
        _exchange(out)
        sync(out)
    finally:
        with contextlib.suppress(OSError):
            _remove(part)
    with contextlib.suppress(OSError):  # hidden, and the next start removes it
        _remove(out / OLD)


def _exchange(out: Path) -> None:
    """Give the new pages their place; the earlier ones keep it if that fails."""
    with contextlib.suppress(FileNotFoundError):
        (out / PAGES).rename(out / OLD)
    try:
        (out / PART).rename(out / PAGES)
    except BaseException:
        with contextlib.suppress(OSError):
            (out / OLD).rename(out / PAGES)
        raise


def hide_pages(out: Path) -> None:
    """Hide an earlier run's pages while its tables are replaced; beside a file that is no page they are removed.

    Raises:
        OSError: they cannot be renamed or removed.
    """
    if _listed(out / PAGES) and not _others(out / PAGES):
        _remove(out / EARLIER)
        (out / PAGES).rename(out / EARLIER)
    else:
        remove_pages(out)


def show_pages(out: Path) -> None:
    """Give hidden pages their place back.

    Raises:
        OSError: they cannot be renamed.
    """
    if hidden_pages(out):
        (out / EARLIER).rename(out / PAGES)


def hidden_pages(out: Path) -> bool:
    """Whether `hide_pages` has hidden pages there.

    Raises:
        OSError: the folder cannot be read.
    """
    return _listed(out / EARLIER) is not None


def remove_hidden_pages(out: Path) -> None:
    """Remove what `hide_pages` has hidden.

    Raises:
        OSError: they cannot be removed.
    """
    _remove(out / EARLIER)


def remove_pages(out: Path) -> None:
    """Remove an earlier run's pages, at once for whoever looks; a file that is no page stays, and so does its folder.

    Raises:
        OSError: they cannot be removed.
    """
    for name in (PART, OLD):
        _remove(out / name)
    if _listed(out / PAGES) and not _others(out / PAGES):
        (out / PAGES).rename(out / OLD)
        _remove(out / OLD)
    else:
        _remove(out / PAGES)


def check_pages(out: Path) -> None:
    """Make sure that pages can get their place.

    Raises:
        OutputError: `report` is a file, or holds a file that is no page.
        OSError: it cannot be read.
    """
    path = out / PAGES
    if os.path.lexists(path) and _listed(path) is None:
        raise OutputError(f"{path}: is no folder, and the pages go there. Remove it, or choose another folder")
    if others := _others(path):
        raise OutputError(
            f"{path / others[0]}: is no page, and lies where the pages go. Move it elsewhere, or choose another folder"
        )


def _listed(folder: Path) -> list[str] | None:
    """The names in a folder; None if there is no folder."""
    if folder.is_symlink():
        return None
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _others(folder: Path) -> list[str]:
    return [name for name in _listed(folder) or () if not PAGE.fullmatch(name)]


def _remove(folder: Path) -> None:
    names = _listed(folder)
    if names is None:
        return
    for name in names:
        if PAGE.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
    if not _others(folder):
        folder.rmdir()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
