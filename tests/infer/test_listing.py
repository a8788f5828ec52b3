import errno
import inspect
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infer.pictures.listing import Listing, list_images, still_changing
from tests.synthetic import draw_cell


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw_cell(1, np.random.default_rng(0), size=128)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000"])
@pytest.mark.parametrize(
    "name", ["000001.jfif", "000001", "000001.jpe", "000001.JPG.part", "000001.txt", "000001.jpg~"]
)
def test_a_picture_is_known_by_its_content(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(encoded(kind))
    assert list_images(tmp_path) == Listing((name,))


@pytest.mark.parametrize(
    "start",
    [
        b"II+\0\x08\0\0\0",  # BigTIFF
        b"MM\0*\0\0\0\x08",
        b"\0\0\0\x18ftypheic",
        b"\0\0\0\x18ftypmif1",
        b"\0\0\0\x18ftypavif",
        b"\xff\x0a",  # JPEG XL without its box
        b"BM" + bytes(12) + bytes([124, 0, 0, 0]),  # header version 5
        b"BM" + bytes(12) + bytes([12, 0, 0, 0]),
        bytes(128) + b"DICM",
        b"\xff\x4f\xff\x51",
        b"\0\0\0\x0cJXL ",
    ],
)
def test_pictures_that_cannot_be_read_do_not_go_by_in_silence(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "000001").write_bytes(start + bytes(300))
    assert list_images(tmp_path).names == ("000001",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"B",
        b"BM",
        b"BMI;23.5\nP1;1;2;3;4;5;6",
        b"notes",
        b"\xff\xd8",
        b"\xd0\xcf\x11\xe0" + bytes(600),
        b"%PDF-1.7",
        b"RIFF1234WAVE",
    ],
)
def test_what_is_none_is_ignored_and_counted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert list_images(tmp_path) == Listing((), ignored=1)


def test_what_a_suffix_says_is_believed_and_found_out_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"notes")
    (tmp_path / "b.TIF").mkdir()
    assert list_images(tmp_path) == Listing(("a.jpg", "b.TIF"))


def test_pictures_are_listed_by_name_and_the_rest_is_counted(tmp_path: Path) -> None:
    for name in (
        "b.JPG",
        "a.png",
        "10.jpeg",
        "9.tif",
        "c.tiff",
        "d.BMP",
        "notes.txt",
        "Thumbs.db",
        "jpg",
        "e.jpg.part",
    ):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder").mkdir()
    assert list_images(tmp_path) == Listing(("10.jpeg", "9.tif", "a.png", "b.JPG", "c.tiff", "d.BMP"), ignored=5)


def test_hidden_files_and_folders_go_by_silently(tmp_path: Path) -> None:
    (tmp_path / "000001.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "._000001.jpg").write_bytes(b"\0\5\x16\7" + bytes(200))
    (tmp_path / ".000002.jpg.Xa1").write_bytes(encoded("JPEG"))
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails/000001.jpg").write_bytes(encoded("JPEG"))
    assert list_images(tmp_path) == Listing(("000001.jpg",))


def test_folders_below_that_hold_pictures_are_named(tmp_path: Path) -> None:
    for path, content in {
        "slide2/000001.jpg": b"by its suffix",
        "Slide 3/deep/er/scan": encoded("PNG"),
        "papers/notes.txt": b"notes",
        "hidden/.000001.jpg": encoded("JPEG"),
        "hidden/.deep/000001.jpg": encoded("JPEG"),
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "slide2")
    assert list_images(tmp_path) == Listing((), ignored=6, below=("Slide 3", "slide2"))


def test_links_are_taken_by_their_suffix_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "c").symlink_to("a.jpg")
    (tmp_path / "d").symlink_to("d")
    os.mkfifo(tmp_path / "e")
    assert list_images(tmp_path) == Listing(("a.jpg", "b.jpg"), ignored=3)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY, errno.ENOENT, errno.EIO, errno.ESTALE])
def test_a_file_that_is_locked_is_ignored_and_a_disk_that_fails_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Without a picture suffix, e.g. a thumbnail database locked by a share."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "Thumbs.db").write_bytes(b"notes")
    monkeypatch.setattr(Path, "open", refuse)
    if number in (errno.EIO, errno.ESTALE):
        with pytest.raises(OSError, match=os.strerror(number)):
            list_images(tmp_path)
    else:
        assert list_images(tmp_path) == Listing((), ignored=1)


def test_folders_below_folders_without_end(tmp_path: Path) -> None:
    """A few hundred levels and a low recursion limit: with a thousand, the test folder could not be removed."""
    (tmp_path / "/".join("x" * 200)).mkdir(parents=True)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 60)
    try:
        listing = list_images(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert listing == Listing((), ignored=1)


def test_a_file_that_gets_its_name_meanwhile_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Renamed:
        def stat(self, **_: object) -> None:
            raise FileNotFoundError

    class Folder(list[Renamed]):
        def __enter__(self) -> "Folder":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("infer.pictures.listing.os.scandir", lambda _: Folder([Renamed()]))
    assert still_changing(tmp_path, 1.0) == "a file in the folder was renamed just now. Run again later"


def test_a_file_dated_in_the_future_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    far = (tmp_path / "a.jpg").stat().st_mtime + 10**8
    os.utime(tmp_path / "a.jpg", (far, far))
    assert still_changing(tmp_path, 1.0).startswith("a file is dated in the future")


def test_names_that_are_no_text_are_listed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        (tmp_path / name).write_bytes(encoded("JPEG"))
    except OSError:
        pytest.skip("this file system accepts only UTF-8 names")
    assert list_images(tmp_path).names == (name,)


def test_a_folder_is_changing_while_anything_in_it_is_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's inode change time cannot be set, so the clock is changed instead."""
    folder = tmp_path / "P1"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"")
    os.utime(folder / "a.jpg", (1, 1))
    os.utime(folder, (1, 1))
    now = (folder / "a.jpg").stat().st_ctime
    for later, changing in ((0.0, True), (59.0, True), (61.0, False), (-3600.0, True)):
        monkeypatch.setattr("infer.pictures.listing.time.time", lambda later=later: now + later)
        assert bool(still_changing(folder, 60.0)) == changing
    monkeypatch.setattr("infer.pictures.listing.time.time", lambda: now + 61.0)
    (folder / ".b.jpg.Xa1").write_bytes(b"")  # temporary name used by rsync
    os.utime(folder / ".b.jpg.Xa1", (now + 30, now + 30))
    assert still_changing(folder, 60.0)


def test_a_folder_is_changing_when_something_was_taken_away_or_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, far = tmp_path / "P1", tmp_path / "far.jpg"
    folder.mkdir()
    far.write_bytes(b"")
    (folder / "a.jpg").symlink_to(far)
    now = folder.stat().st_ctime
    monkeypatch.setattr("infer.pictures.listing.time.time", lambda: now + 100)
    assert not still_changing(folder, 60.0)
    os.utime(far, (now + 90, now + 90))  # a link's own times count: its target may not exist yet
    assert not still_changing(folder, 60.0)
    os.utime(folder, (now + 90, now + 90))
    assert still_changing(folder, 60.0)


def test_a_copy_that_brings_its_times_with_it_is_young_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    for path in (tmp_path / "a.jpg", tmp_path):
        os.utime(path, (1, 1))
    assert still_changing(tmp_path, 60.0)


def test_of_a_folder_that_is_not_there_both_say_so(tmp_path: Path) -> None:
    for look in (list_images, lambda folder: still_changing(folder, 1.0)):
        with pytest.raises(FileNotFoundError):
            look(tmp_path / "P1")
