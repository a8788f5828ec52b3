"""Lists a patient's folder: what in it is a picture, whatever its name, and what lies in folders below.

Half a folder gives a number that looks right. So a picture is known by its first bytes where its suffix does not say
so, pictures in folders below are named, and a folder that is still being copied can be left for the next start.
"""

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
AHEAD = 60.0  # seconds that a file server's clock may be ahead
# What refuses to be opened is no picture by its suffix: a thumbnail database that a share holds, say.
LOCKED = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY, errno.EAGAIN, errno.ENOENT, errno.ENXIO})
SNIFFED = 132  # bytes: a DICOM file says what it is behind 128 of anything
STARTS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF, BigTIFF
    # Pictures that lympho cannot read: they must not go by in silence.
    *(b"GIF8", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL ", b"\xff\x0a"),  # GIF, JPEG 2000, JPEG XL
)
BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # bytes


@dataclass(frozen=True)
class Listing:
    """What lies in a patient's folder; hidden files and folders are left out."""

    names: tuple[str, ...]  # pictures by their suffix or their content, sorted
    ignored: int = 0  # anything else
    below: tuple[str, ...] = ()  # folders in it that hold pictures, sorted


def list_images(folder: Path) -> Listing:
    """The pictures of a patient's folder, sorted by name.

    Raises:
        OSError: the folder is missing or cannot be read.
    """
    names: list[str] = []
    below: list[str] = []
    ignored = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):  # ._x.jpg beside x.jpg is what a Mac knows of it
                continue
            if _has_suffix(entry.name) or _is_picture(entry):
                names.append(entry.name)
                continue
            ignored += 1
            if entry.is_dir(follow_symlinks=False) and any(_pictures_below(entry.path)):
                below.append(entry.name)
    return Listing(tuple(sorted(names)), ignored, tuple(sorted(below)))


def still_changing(folder: Path, settle: float) -> str:
    """Why the folder may still be copied: it or a file in it is younger than so many seconds. Empty if it is not.

    Raises:
        OSError: the folder is missing or cannot be read.
    """
    with os.scandir(folder) as entries:
        files = list(entries)
    states = [folder.stat()]
    for file in files:
        try:
            states.append(file.stat(follow_symlinks=False))
        except FileNotFoundError:  # as a copy's last step gives the file its name
            return "a file in the folder got another name just now. Start again later"
    # A copy may bring the time of writing with it, but not that of the last change to the file's entry.
    age = time.time() - max(max(state.st_mtime, state.st_ctime) for state in states)
    if age < -AHEAD:
        return "a file is dated in the future, so its age is not known. Correct its time, or this machine's clock"
    if age < settle:
        return f"a file changed less than {settle:g} s ago and may still be copied. Start again later"
    return ""


def _has_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """By its first bytes.

    Raises:
        OSError: the disk or the network failed.
    """
    if not entry.is_file(follow_symlinks=False):
        return False
    try:
        with Path(entry.path).open("rb") as file:
            start = file.read(SNIFFED)
    except OSError as error:
        if error.errno in LOCKED:
            return False
        raise
    return (
        start.startswith(STARTS)
        or (start.startswith(b"BM") and int.from_bytes(start[14:18], "little") in BMP_HEADERS)
        or (start.startswith(b"RIFF") and start[8:12] == b"WEBP")
        or start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftypavif")
        or start[128:132] == b"DICM"
    )


def _pictures_below(folder: str) -> Iterator[bool]:
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    yield (_has_suffix(entry.name) and entry.is_file(follow_symlinks=False)) or _is_picture(entry)
        except OSError:  # what cannot be looked into is not named
            continue
