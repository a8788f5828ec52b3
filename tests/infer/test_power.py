"""The simulated power failure itself: it must lose what may be lost, and nothing else."""

import os
from pathlib import Path

import pytest

from tests.power import Disk

Seen = set[tuple[tuple[str, bytes], ...]]


def contents(folder: Path) -> tuple[tuple[str, bytes], ...]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path.relative_to(folder)), path.read_bytes()) for path in files)


class Watched:
    """A folder, and all that may be left of it at the last moment."""

    def __init__(self, root: Path) -> None:
        self.seen: Seen = set()
        self.disk = Disk(root, lambda state: self.seen.add(contents(state)), most=200)

    def left(self, times: int = 6) -> Seen:
        self.seen.clear()
        for _ in range(times):  # which bytes are left of a file is drawn
            self.disk.cut()
        return self.seen


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/old").write_bytes(b"old")
    return tmp_path / "root"


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_what_was_there_stays(root: Path) -> None:
    assert Watched(root).left() == {(("old", b"old"),)}


def test_a_file_that_was_not_synced_may_be_anything_of_it(root: Path) -> None:
    watched = Watched(root)
    with watched.disk.watching():
        (root / "new").write_bytes(b"new")
        sync(root)
        left = watched.left(40)
    found = {dict(files)["new"] for files in left}
    assert {b"", b"new", b"ne", bytes(3), b"\0\0w"} <= found
    assert all(dict(files)["old"] == b"old" for files in left)


def test_a_synced_file_may_have_no_name_until_its_folder_is_synced(root: Path) -> None:
    watched = Watched(root)
    with watched.disk.watching():
        (root / "new").write_bytes(b"new")
        sync(root / "new")
        assert watched.left() == {(("old", b"old"),), (("new", b"new"), ("old", b"old"))}
        sync(root)
        assert watched.left() == {(("new", b"new"), ("old", b"old"))}


def test_changes_of_names_are_lost_in_any_order_and_one_renaming_is_one_change(root: Path) -> None:
    (root / "b").write_bytes(b"b")
    watched = Watched(root)
    with watched.disk.watching():
        (root / "old").rename(root / "older")
        (root / "b").replace(root / "old")
        left = watched.left()
    old, b = ("old", b"old"), ("b", b"b")
    assert left == {(b, old), (b, ("older", b"old")), (("old", b"b"),), (("old", b"b"), ("older", b"old"))}


def test_what_was_appended_may_be_lost_and_what_was_synced_before_may_not(root: Path) -> None:
    watched = Watched(root)
    with watched.disk.watching(), (root / "old").open("ab", buffering=0) as file:
        file.write(b"+1")
        os.fsync(file.fileno())
        file.write(b"+2")
        found = {dict(files)["old"] for files in watched.left(40)}
    assert {b"old+1", b"old+1+", b"old+1+2", b"old+1\0\0"} <= found
    assert all(one.startswith(b"old+1") for one in found)


def test_removed_files_and_folders_may_come_back_with_what_they_held(root: Path) -> None:
    (root / "inner").mkdir()
    (root / "inner/one").write_bytes(b"1")
    watched = Watched(root)
    with watched.disk.watching():
        (root / "inner/one").unlink()
        (root / "inner").rmdir()
        (root / "inner").mkdir()
        (root / "inner/two").write_bytes(b"2")
        found = {tuple(name for name, _ in files) for files in watched.left()}
    assert found == {("inner/one", "old"), ("old",), ("inner/two", "old")}


def test_moments_are_before_and_after_every_step(root: Path) -> None:
    watched = Watched(root)
    with watched.disk.watching():
        (root / "old").rename(root / "a")
        (root / "a").rename(root / "b")
        sync(root)
    assert watched.disk.moments == 4
    assert (("a", b"old"),) in watched.seen
    assert watched.left() == {(("b", b"old"),)}


def test_other_folders_are_left_alone(root: Path, tmp_path: Path) -> None:
    watched = Watched(root)
    with watched.disk.watching():
        (tmp_path / "x").write_bytes(b"x")
        (tmp_path / "x").rename(tmp_path / "y")
    assert watched.disk.moments == 1
