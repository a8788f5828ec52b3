"""Reads a bundle and refuses a damaged one: every byte is checked before any is used.

A bundle is a folder with manifest.json, its graphs, MODEL_CARD.md, and SHA256SUMS of all of these.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from infer.bundle.manifest import MANIFEST, Manifest, decode
from infer.errors import BundleError

CHECKSUMS = "SHA256SUMS"
CARD = "MODEL_CARD.md"
REFERENCE = Path(__file__).parents[1] / "reference"  # the bundle shipped with lympho


@dataclass(frozen=True)
class Bundle:
    """A fully checked bundle. Graphs are kept in memory as read, so they cannot change during a run."""

    folder: Path
    bundle_id: str  # SHA-256 of the manifest
    manifest: Manifest
    graphs: dict[str, bytes]
    card: str = ""  # the model card, Markdown

    @property
    def short_id(self) -> str:
        """The ID as written in predictions.csv."""
        return self.bundle_id[:12]


def load_bundle(folder: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: a file is missing, added or changed, or the manifest is invalid; the message names the file.
    """
    files = _read_files(folder)
    stored = files.pop(CHECKSUMS, None)
    if stored is None:
        raise BundleError(f"{folder / CHECKSUMS}: is missing. Copy the bundle again")
    _compare(folder, stored, checksums(files))
    for name in (MANIFEST, CARD):
        if name not in files:
            raise BundleError(f"{folder / name}: is missing. Export the bundle again")
    manifest = decode(files[MANIFEST], str(folder / MANIFEST))
    for name, digest in manifest.graphs.items():
        if name not in files:
            raise BundleError(f"{folder / name}: is missing. Export the bundle again")
        if _sha256(files[name]) != digest:
            raise BundleError(f"{folder / name}: is not the graph that {MANIFEST} describes. Export the bundle again")
    graphs, card = {name: files[name] for name in manifest.graphs}, files[CARD].decode("utf-8", errors="replace")
    return Bundle(folder, _sha256(files[MANIFEST]), manifest, graphs, card)


def checksums(files: dict[str, bytes]) -> bytes:
    """The text of SHA256SUMS for these files, as `sha256sum` writes it, sorted by name."""
    return "".join(f"{_sha256(data)}  {name}\n" for name, data in sorted(files.items())).encode()


def _read_files(folder: Path) -> dict[str, bytes]:
    try:
        entries = sorted(folder.iterdir())
        for entry in entries:
            if entry.is_symlink() or not entry.is_file():
                raise BundleError(f"{entry}: a bundle holds plain files only. Remove it")
        return {entry.name: entry.read_bytes() for entry in entries}
    except OSError as error:
        raise BundleError(
            f"{error.filename or folder}: cannot be read ({error.strerror}). Copy it again, or correct its permissions"
        ) from error


def _compare(folder: Path, stored: bytes, actual: bytes) -> None:
    """Any difference is an error; comparing line by line tells which file it concerns."""
    if stored == actual:
        return
    listed, present = (_by_name(text) for text in (stored, actual))
    for name in sorted(present.keys() | listed.keys()):
        if name not in present:
            raise BundleError(f"{folder / name}: is listed in {CHECKSUMS} but missing. Copy the bundle again")
        if name not in listed:
            raise BundleError(f"{folder / name}: is not listed in {CHECKSUMS}. Copy the bundle again")
        if listed[name] != present[name]:
            raise BundleError(f"{folder / name}: does not match its checksum in {CHECKSUMS}. Copy the bundle again")
    raise BundleError(f"{folder / CHECKSUMS}: was changed. Copy the bundle again")


def _by_name(text: bytes) -> dict[str, str]:
    lines = text.decode("utf-8", errors="replace").split("\n")
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines if line)}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
