import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from infer.bundle.load import CARD, CHECKSUMS, REFERENCE, checksums, load_bundle
from infer.bundle.manifest import MANIFEST
from infer.errors import BundleError
from tests.bundles import ALL_GRAPHS

FILES = (MANIFEST, CARD, *sorted(ALL_GRAPHS))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(REFERENCE, tmp_path / "bundle"))


def problem(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert caught.value.exit_code == 5
    return str(caught.value)


def seal(folder: Path) -> None:
    """Rewrite SHA256SUMS, as after changing a bundle by hand."""
    names = [path.name for path in folder.iterdir() if path.name != CHECKSUMS]
    (folder / CHECKSUMS).write_bytes(checksums({name: (folder / name).read_bytes() for name in names}))


def test_the_reference_bundle_is_whole() -> None:
    bundle = load_bundle(REFERENCE)
    manifest = (REFERENCE / MANIFEST).read_bytes()
    assert bundle.bundle_id == hashlib.sha256(manifest).hexdigest()
    assert bundle.short_id == bundle.bundle_id[:12]
    assert set(bundle.graphs) == ALL_GRAPHS
    for name, digest in bundle.manifest.graphs.items():
        assert hashlib.sha256((REFERENCE / name).read_bytes()).hexdigest() == digest
    assert {path.name for path in REFERENCE.iterdir()} == {*FILES, CHECKSUMS}


def test_the_checksums_are_what_sha256sum_checks() -> None:
    lines = (REFERENCE / CHECKSUMS).read_text().splitlines()
    assert lines == [f"{hashlib.sha256((REFERENCE / name).read_bytes()).hexdigest()}  {name}" for name in sorted(FILES)]


@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("name", [*FILES, CHECKSUMS])
def test_any_changed_byte_names_its_file(bundle: Path, name: str, where: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    place = {"first": 0, "middle": len(data) // 2, "last": -1}[where]
    data[place] ^= 1
    (bundle / name).write_bytes(data)
    message = problem(bundle)
    assert name in message
    assert str(bundle) in message


def test_any_changed_byte_of_the_checksums_is_seen(bundle: Path) -> None:
    """The other files are covered by checksums; this file is covered only by an exact comparison."""
    for path in bundle.glob("*.onnx"):
        path.write_bytes(b"")  # small files, so that many iterations are fast
    seal(bundle)
    good = (bundle / CHECKSUMS).read_bytes()
    for place in range(len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 1
        (bundle / CHECKSUMS).write_bytes(damaged)
        assert CHECKSUMS in problem(bundle)


@pytest.mark.parametrize("name", [*FILES, CHECKSUMS])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert f"{bundle / name}: " in problem(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_even_if_the_checksums_do_not_list_it(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    seal(bundle)
    assert f"{bundle / name}: is missing" in problem(bundle)


@pytest.mark.parametrize("name", ["notes.txt", ".DS_Store", "manifest.json.bak"])
def test_an_added_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes(b"")
    assert f"{bundle / name}: " in problem(bundle)


def test_a_link_is_refused_whatever_it_points_to(bundle: Path) -> None:
    (bundle / CARD).unlink()
    (bundle / CARD).symlink_to(REFERENCE / CARD)
    assert f"{bundle / CARD}: a bundle holds plain files only" in problem(bundle)


def test_a_folder_inside_is_refused(bundle: Path) -> None:
    (bundle / "more").mkdir()
    assert f"{bundle / 'more'}: a bundle holds plain files only" in problem(bundle)


def test_a_pipe_inside_does_not_hang(bundle: Path) -> None:
    os.mkfifo(bundle / "pipe")
    assert f"{bundle / 'pipe'}: a bundle holds plain files only" in problem(bundle)


def cut_the_last_newline(data: bytes) -> bytes:
    return data[:-1]


def add_an_empty_line(data: bytes) -> bytes:
    return data + b"\n"


def turn_the_lines_round(data: bytes) -> bytes:
    return b"".join(reversed(data.splitlines(keepends=True)))


def write_windows_lines(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def say_the_first_line_twice(data: bytes) -> bytes:
    return data.splitlines(keepends=True)[0] + data


@pytest.mark.parametrize(
    "change",
    [cut_the_last_newline, add_an_empty_line, turn_the_lines_round, write_windows_lines, say_the_first_line_twice],
)
def test_checksums_that_say_the_same_in_other_bytes_are_refused(bundle: Path, change: Callable[[bytes], bytes]) -> None:
    (bundle / CHECKSUMS).write_bytes(change((bundle / CHECKSUMS).read_bytes()))
    assert CHECKSUMS in problem(bundle)


def test_a_graph_that_the_manifest_does_not_describe_is_refused(bundle: Path) -> None:
    shutil.copy(bundle / "scan.onnx", bundle / "baseline.onnx")
    seal(bundle)
    assert f"{bundle / 'baseline.onnx'}: is not the graph that manifest.json describes" in problem(bundle)


def test_a_changed_manifest_has_another_id(bundle: Path) -> None:
    before = load_bundle(bundle).bundle_id
    data = (bundle / MANIFEST).read_bytes()
    (bundle / MANIFEST).write_bytes(data + b"\n")
    seal(bundle)
    assert load_bundle(bundle).bundle_id != before


def test_a_changed_card_keeps_the_id(bundle: Path) -> None:
    before = load_bundle(bundle).bundle_id
    (bundle / CARD).write_bytes(b"another card")
    seal(bundle)
    assert load_bundle(bundle).bundle_id == before


def test_no_bundle_at_all(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'}: cannot be read" in problem(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    assert "cannot be read" in problem(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty' / CHECKSUMS}: is missing" in problem(tmp_path / "empty")
