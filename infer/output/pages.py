"""The folders in OUT: each appears whole or not at all, and never beside another run's tables.

Files are written to a hidden folder that gets its name once all are safely on the disk. Only files that have a page's
name, or that a folder lists as its own, are ever removed.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from infer.errors import OutputError
from infer.machine.disk import sync
from infer.machine.locks import MODE
from infer.output.kinds import KINDS, LIST, REPORT, Kind

FOLDER_MODE = 0o750
PAGES, PART, OLD = REPORT.folder, REPORT.part, REPORT.old


class Pages:
    """The hidden folder that files are written to."""

    def __init__(self, folder: Path, kind: Kind = REPORT) -> None:
        self._folder, self._kind = folder, kind
        self._names: list[str] = []

    def write(self, name: str, text: str) -> None:
        """Write a file.

        Args:
            name: of the file, one that the kind knows.

        Raises:
            OSError: the disk is full or not available.
        """
        if not self._kind.name.fullmatch(name):
            raise ValueError(f"{name}: is no {self._kind.one}'s name")
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)
        self._names.append(name)

    def write_list(self) -> None:
        """Write LIST, if the folder has one.

        Raises:
            OSError: the disk is full or not available.
        """
        if self._kind.listed:
            self.write(LIST, "".join(f"{name}\n" for name in sorted(self._names)))


@contextlib.contextmanager
def new_pages(out: Path, kind: Kind = REPORT) -> Iterator[Pages]:
    """Write all files of a folder: they get their place when the block ends, and are removed if it fails.

    Args:
        out: locked by the caller.

    Raises:
        OutputError: a file that is none of these is in the way.
        OSError: the disk is full or not available.
    """
    check_pages(out, kind)
    part = out / kind.part
    for left in (part, out / kind.old):  # by a run that was killed
        _remove(left, kind)
    part.mkdir(FOLDER_MODE)
    try:
        pages = Pages(part, kind)
        yield pages
        pages.write_list()
        # Late: by now the system has written most of them, and a sync of each on its own would wait for the disk.
        for path in sorted(part.iterdir()):
            _sync_file(path)
        sync(part)
        _exchange(out, kind)
        sync(out)
    finally:
        with contextlib.suppress(OSError):
            _remove(part, kind)
    with contextlib.suppress(OSError):  # hidden, and the next start removes it
        _remove(out / kind.old, kind)


def _exchange(out: Path, kind: Kind) -> None:
    """Give the new files their place; the earlier ones keep it if that fails."""
    with contextlib.suppress(FileNotFoundError):
        (out / kind.folder).rename(out / kind.old)
    try:
        (out / kind.part).rename(out / kind.folder)
    except BaseException:
        with contextlib.suppress(OSError):
            (out / kind.old).rename(out / kind.folder)
        raise


def hide_pages(out: Path) -> None:
    """Hide an earlier run's folders while its tables are replaced; beside somebody's file their files are removed.

    Raises:
        OSError: they cannot be renamed or removed.
    """
    for kind in KINDS:
        path = out / kind.folder
        if _listed(path) and not _others(path, kind):
            _remove(out / kind.earlier, kind)
            path.rename(out / kind.earlier)
        else:
            _remove_kind(out, kind)


def show_pages(out: Path) -> None:
    """Give hidden folders their place back.

    Raises:
        OSError: they cannot be renamed.
    """
    for kind in KINDS:
        if _listed(out / kind.earlier) is not None:
            (out / kind.earlier).rename(out / kind.folder)


def hidden_pages(out: Path) -> bool:
    """Whether `hide_pages` has hidden a folder there.

    Raises:
        OSError: the folder cannot be read.
    """
    return any(_listed(out / kind.earlier) is not None for kind in KINDS)


def remove_hidden_pages(out: Path) -> None:
    """Remove what `hide_pages` has hidden.

    Raises:
        OSError: they cannot be removed.
    """
    for kind in KINDS:
        _remove(out / kind.earlier, kind)


def remove_pages(out: Path) -> None:
    """Remove an earlier run's folders, at once for whoever looks; somebody's file stays, and so does its folder.

    Raises:
        OSError: they cannot be removed.
    """
    for kind in KINDS:
        _remove_kind(out, kind)


def _remove_kind(out: Path, kind: Kind) -> None:
    for name in (kind.part, kind.old):
        _remove(out / name, kind)
    path = out / kind.folder
    if _listed(path) and not _others(path, kind):
        path.rename(out / kind.old)
        _remove(out / kind.old, kind)
    else:
        _remove(path, kind)


def check_pages(out: Path, kind: Kind = REPORT) -> None:
    """Make sure that a folder can get its place.

    Raises:
        OutputError: it is a file, or holds a file that is not its own.
        OSError: it cannot be read.
    """
    path = out / kind.folder
    if os.path.lexists(path) and _listed(path) is None:
        raise OutputError(f"{path}: is no folder, and the {kind.all} go there. Remove it, or choose another folder")
    if others := _others(path, kind):
        raise OutputError(
            f"{path / others[0]}: is no {kind.one}, and lies where the {kind.all} go. Move it elsewhere, or choose "
            "another folder"
        )


def _listed(folder: Path) -> list[str] | None:
    """The names in a folder; None if there is no folder."""
    if folder.is_symlink():
        return None
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _others(folder: Path, kind: Kind) -> list[str]:
    """The files that the program has not written."""
    own = _own(folder, kind)
    return [name for name in _listed(folder) or () if not (kind.name.fullmatch(name) and (own is None or name in own))]


def _own(folder: Path, kind: Kind) -> set[str] | None:
    """The names that a folder lists as its own; None if a name alone tells: nobody else writes to a hidden folder."""
    if not kind.listed or folder.name != kind.folder:
        return None
    try:
        return {LIST, *(folder / LIST).read_text(encoding="utf-8").splitlines()}
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return set()


def _remove(folder: Path, kind: Kind) -> None:
    names = _listed(folder)
    if names is None:
        return
    others = set(_others(folder, kind))
    for name in sorted(names, key=lambda name: name == LIST):  # last: until then it says whose the others are
        if name not in others:
            (folder / name).unlink(missing_ok=True)
    if not others:
        folder.rmdir()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
