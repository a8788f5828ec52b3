"""Lists a patient's folder: which files are pictures, whatever their names, and which subfolders contain pictures.

Half a folder gives a number that looks right. So a picture without a known suffix is recognised by its first bytes,
subfolders with pictures are reported, and a folder that is still being copied can be left for the next run.
"""

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
AHEAD = 60.0  # seconds by which a file server's clock may be ahead
# A file without a picture suffix that cannot be opened is no picture, e.g. a thumbnail database locked by a share.
LOCKED = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY, errno.EAGAIN, errno.ENOENT, errno.ENXIO})
SNIFFED = 132  # bytes: in DICOM files, the signature comes after 128 arbitrary bytes
STARTS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF, BigTIFF
    # Pictures that lympho cannot read: they must not be ignored silently.
    *(b"GIF8", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL ", b"\xff\x0a"),  # GIF, JPEG 2000, JPEG XL
)
BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # bytes


@dataclass(frozen=True)
class Listing:
    """The content of a patient's folder; hidden files and folders are left out."""

    names: tuple[str, ...]  # pictures, by suffix or content, sorted
    ignored: int = 0  # number of other files and folders
    below: tuple[str, ...] = ()  # subfolders that contain pictures, sorted


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
            if entry.name.startswith("."):  # e.g. ._x.jpg, the metadata that macOS stores for x.jpg
                continue
            if _has_suffix(entry.name) or _is_picture(entry):
                names.append(entry.name)
                continue
            ignored += 1
            if entry.is_dir(follow_symlinks=False) and any(_pictures_below(entry.path)):
                below.append(entry.name)
    return Listing(tuple(sorted(names)), ignored, tuple(sorted(below)))


def still_changing(folder: Path, settle: float) -> str:
    """Why the folder may still be being copied: it or a file in it changed within `settle` seconds. Empty if not.

    Raises:
        OSError: the folder is missing or cannot be read.
    """
    with os.scandir(folder) as entries:
        files = list(entries)
    states = [folder.stat()]
    for file in files:
        try:
            states.append(file.stat(follow_symlinks=False))
        except FileNotFoundError:  # e.g. renamed in the last step of copying
            return "a file in the folder was renamed just now. Run again later"
    # Copying may preserve the modification time, but not the time of the last inode change.
    age = time.time() - max(max(state.st_mtime, state.st_ctime) for state in states)
    if age < -AHEAD:
        return "a file is dated in the future, so its age is unknown. Correct its time or this machine's clock"
    if age < settle:
        return f"a file changed less than {settle:g} s ago and may still be being copied. Run again later"
    return ""


def _has_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """Whether a file is a picture, by its first bytes.

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
        except OSError:  # an unreadable folder is not reported
            continue
