"""A bundle that was reported exported is on the disk; tests/power.py says what a disk may lose."""

from pathlib import Path

import pytest

import export.publish as publishing
from export.publish import publish
from infer.bundle.load import CARD, CHECKSUMS, checksums, load_bundle
from infer.errors import BundleError
from tests.infer.runs import TINY
from tests.power import Disk


@pytest.fixture(autouse=True)
def _no_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads, and writes nothing."""
    monkeypatch.setattr(publishing, "Networks", lambda *_: None)
    monkeypatch.setattr(publishing, "self_test", lambda *_: None)


def bundle(card: str) -> dict[str, bytes]:
    """The tiny bundle with another card."""
    files = {path.name: path.read_bytes() for path in TINY.iterdir() if path.name != CHECKSUMS}
    files[CARD] = card.encode()
    return {**files, CHECKSUMS: checksums(files)}


def card_of(folder: Path) -> str | None:
    """The card of a whole bundle; None if there is no folder. Fails if it is damaged."""
    if not folder.exists():
        return None
    load_bundle(folder)
    return (folder / CARD).read_text()


def test_a_new_bundle_is_there_with_its_new_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    reported = False

    def check(state: Path) -> None:
        assert card_of(state / "bundles/new") in ({"new"} if reported else {None, "new"})

    disk = Disk(root, check)
    with disk.watching():
        publish(bundle("new"), root / "bundles/new")
        reported = True
    assert disk.states > 30


def test_an_earlier_bundle_is_there_until_the_new_one_is(tmp_path: Path) -> None:
    folder = tmp_path / "root/bundle"
    folder.parent.mkdir()
    publish(bundle("earlier"), folder)
    reported = False
    without_name = 0

    def check(state: Path) -> None:
        nonlocal without_name
        found = card_of(state / "bundle")
        if reported:
            assert found == "new"
        elif found is None:  # just then
            assert card_of(state / ".bundle.old") == "earlier"
            without_name += 1
            with pytest.raises(BundleError):
                publish({CARD: b""}, state / "bundle")
            assert card_of(state / "bundle") == "earlier"
        else:
            assert found in {"earlier", "new"}

    disk = Disk(folder.parent, check)
    with disk.watching():
        publish(bundle("new"), folder)
        reported = True
    assert without_name
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]
