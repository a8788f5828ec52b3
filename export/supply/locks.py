"""The locks that `make lock` writes: each package's version, and the hashes that its files may have."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infer.errors import UsageError

ROOT = Path(__file__).parents[2]
RUNTIME, CUDA = ROOT / "infer/requirements.txt", ROOT / "infer/requirements-cuda.txt"  # these two ship
LEAN, FULL = ROOT / "tests/requirements-runtime.txt", ROOT / "tests/requirements.txt"
# The images with Ray, and the environment that tests it.
RAY, CUDA_RAY = ROOT / "infer/requirements-ray.txt", ROOT / "infer/requirements-cuda-ray.txt"
LEAN_RAY = ROOT / "tests/requirements-ray.txt"
LOCKS = (RUNTIME, CUDA, LEAN, FULL, RAY, CUDA_RAY, LEAN_RAY)
PACKAGE = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)(?: ; (?P<where>.+))?")
HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Locked:
    """A version of a package in a lock."""

    name: str  # in small letters, with dashes
    version: str
    where: str  # for which Python and which system only; empty: for all
    hashes: frozenset[str]  # sha256:... of every file that may be installed


def read_lock(path: Path) -> dict[str, tuple[Locked, ...]]:
    """The packages of a lock by name: more than one version where Python's version decides.

    Raises:
        UsageError: a line is not as `make lock` writes it, a package has no hash, or a version stands there twice.
        OSError: it cannot be read.
    """
    found: dict[str, tuple[Locked, ...]] = {}
    for number, entry in _entries(path):
        head, *hashes = entry
        match = PACKAGE.fullmatch(head)
        known = [HASH.fullmatch(one) for one in hashes]
        if match is None or not known or not all(known):
            raise UsageError(f"{path}, line {number}: is no package with its hashes. Run make lock")
        others = found.get(match["name"], ())
        if any(match["version"] == other.version for other in others):
            raise UsageError(f"{path}, line {number}: {head} stands there twice. Run make lock")
        digests = frozenset(one[1] for one in known if one)
        found[match["name"]] = (*others, Locked(match["name"], match["version"], match["where"] or "", digests))
    return found


def _entries(path: Path) -> list[tuple[int, list[str]]]:
    """Lines that a backslash joins, each with the number of its first."""
    entries: list[tuple[int, list[str]]] = []
    joined = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.removesuffix("\\").strip()
        if joined:
            entries[-1][1].append(text)
        else:
            entries.append((number, [text]))
        joined = line.endswith("\\")
    return entries


def disagreements(locks: Mapping[str, Mapping[str, tuple[Locked, ...]]]) -> list[str]:
    """A sentence for every package that has other versions, or other hashes, in one lock than in another.

    Args:
        locks: by name, what `read_lock` gave.
    """
    seen: dict[str, tuple[str, frozenset[tuple[str, frozenset[str]]]]] = {}
    found = []
    for lock, packages in locks.items():
        for name, versions in packages.items():
            now = frozenset((one.version, one.hashes) for one in versions)
            first, before = seen.setdefault(name, (lock, now))
            if before != now:
                said = (", ".join(sorted(version for version, _ in which)) for which in (before, now))
                found.append(f"{name}: {first} has {next(said)}, {lock} {next(said)}, or their hashes differ")
    return found
