"""A bundle's folder: written beside the old one, tested, and only then put in its place."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from export.manifest import SELF_TEST_IMAGES
from infer.bundle.load import CHECKSUMS, Bundle, load_bundle
from infer.engine.networks import Networks
from infer.engine.self_test import self_test
from infer.engine.sessions import CPU, Device
from infer.errors import UsageError
from infer.machine.disk import make_folder, sync
from infer.machine.processors import available_processors
from infer.members.member import Precision


def publish(files: Mapping[str, bytes], folder: Path) -> Bundle:
    """Write a bundle, put it to its self-test in each precision it has, and replace what is in the folder.

    When this returns, the bundle is on the disk under its name. A bundle that it replaces has no name while the two
    change places; if the export ends just then, the next one gives it its name back first.

    Args:
        files: all of them, the checksums among them.
        folder: its full path. `check_target` has found that it may be replaced.

    Raises:
        BundleError: it does not pass. The folder is as it was.
    """
    part, old = (folder.with_name(f".{folder.name}.{state}") for state in ("part", "old"))
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    for name, content in files.items():
        with (part / name).open("wb") as file:
            file.write(content)
            file.flush()
            sync(file.fileno())
    sync(part)
    bundle = load_bundle(part)
    precisions: tuple[Precision, ...] = ("float32", *bundle.manifest.precisions)
    for precision in precisions:
        networks = Networks(bundle, Device(CPU, "export"), SELF_TEST_IMAGES, available_processors(), precision)
        self_test(networks, bundle)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)  # left by an export that was interrupted
        os.replace(folder, old)
    os.replace(part, folder)
    sync(folder.parent)  # before the earlier bundle goes: else a power failure could leave neither
    shutil.rmtree(old, ignore_errors=True)
    return load_bundle(folder)


def check_target(folder: Path, replace: bool) -> None:
    """Make sure that nothing but a bundle is replaced, and that only when told.

    Raises:
        UsageError: the folder is not empty and may not be replaced, or holds something else than a bundle.
    """
    held = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if held and not replace:
        raise UsageError(f"{folder}: is not empty. Name another folder, or --replace it")
    foreign = held - _files_of_bundle(folder)
    if foreign:
        raise UsageError(f"{folder}: holds {min(foreign)}, which belongs to no bundle. Name another folder")


def _files_of_bundle(folder: Path) -> set[str]:
    """The files that a bundle in this folder consists of, by its checksums; none if there is no bundle."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return set()
    return {CHECKSUMS, *(line.partition("  ")[2] for line in lines)}
