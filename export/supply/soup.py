"""export/SOUP.md: the software of unknown provenance that ships (IEC 62304, 8.1.2), generated from the locks that ship.

Versions come from the locks, licence, purpose and the list of anomalies from soup.toml.
"""

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from export.supply.locks import CUDA, FULL, RAY, ROOT, RUNTIME, Locked, disagreements, read_lock
from infer.errors import UsageError

FACTS = Path(__file__).with_name("soup.toml")
TABLE = ROOT / "export/SOUP.md"
HEAD = """\
# Software of others that ships (SOUP)

`make soup` writes this page from the locks and [supply/soup.toml](supply/soup.toml); a test compares the three. It is
the list that IEC 62304 asks for (5.3.3, 5.3.4, 7.1.2, 8.1.2) of software of unknown provenance. **lympho is not a
medical device**; who makes one of it has to judge each line, and this page does not do that.

- **Version.** The one in the lock. `make image` installs nothing else: every file has one of the lock's SHA-256.
- **Anomalies.** Where the maker publishes them. Known vulnerabilities of all: <https://osv.dev>, and `make audit`.
  Nobody has gone through these lists for this release.
- **What else is in the image.** Python itself and the base image's Debian packages depend on the base that the image is
  built on. They are listed, with versions, in `/app/sbom.cdx.json` inside it, and so are the libraries that packages
  bring. Known anomalies of Debian: <https://security-tracker.debian.org>; of Python:
  <https://github.com/python/cpython/issues>.
- **What does not ship.** Training, export and tests use {others} packages more
  ([the lock](../tests/requirements.txt)). None is in the image; they are tools, which made the bundle.
"""
COLUMNS = "| package | version | licence | what for | known anomalies |\n|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Fact:
    """What soup.toml says of a package."""

    licence: str  # SPDX expression
    purpose: str
    anomalies: str  # URL


def read_facts(path: Path = FACTS) -> dict[str, Fact]:
    """What is known of each package.

    Raises:
        UsageError: an entry has other fields.
        OSError: it cannot be read.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), dict[str, Fact])
    except (msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}. Each package has licence, purpose and anomalies") from error


Lock = Mapping[str, tuple[Locked, ...]]


def table_of(runtime: Lock, cuda: Lock, ray: Lock, facts: Mapping[str, Fact], others: int) -> str:
    """The page's text.

    Args:
        runtime, cuda, ray: the locks that ship.
        facts: of every package of these, and of no other.
        others: number of packages of the largest lock that do not ship.

    Raises:
        UsageError: a package has no fact, or a fact no package; the locks disagree.
    """
    for name in sorted((runtime.keys() | cuda.keys() | ray.keys()) ^ facts.keys()):
        why = "is in no lock that ships. Remove its entry" if name in facts else "ships. Give it an entry"
        raise UsageError(f"{FACTS}: {name} {why}")
    for said in disagreements({str(RUNTIME): runtime, str(CUDA): cuda, str(RAY): ray}):
        raise UsageError(f"{said}. Run make lock")
    with_cuda, with_ray = (
        {name: versions for name, versions in lock.items() if name not in runtime} for lock in (cuda, ray)
    )
    return (
        HEAD.replace("{others}", str(others))
        + f"\n## In every image\n\n{COLUMNS}{_rows(runtime, facts)}"
        + f"\n## With `CUDA=1`, these too\n\n{COLUMNS}{_rows(with_cuda, facts)}"
        + f"\n## With `RAY=1`, these too\n\n{COLUMNS}{_rows(with_ray, facts)}"
    )


def current_table() -> str:
    """The page as the files of this repository make it.

    Raises:
        UsageError: as `table_of`, `read_facts` and `read_lock`.
    """
    runtime, cuda, ray = read_lock(RUNTIME), read_lock(CUDA), read_lock(RAY)
    others = len(read_lock(FULL).keys() - runtime.keys() - cuda.keys() - ray.keys())
    return table_of(runtime, cuda, ray, read_facts(), others)


def _rows(lock: Lock, facts: Mapping[str, Fact]) -> str:
    rows = []
    for name in sorted(lock):
        fact = facts[name]
        versions = "; ".join(f"{one.version} ({one.where})" if one.where else one.version for one in lock[name])
        rows.append(f"| {name} | {versions} | {fact.licence} | {fact.purpose} | <{fact.anomalies}> |\n")
    return "".join(rows)


def main() -> None:
    """Write the page."""
    try:
        TABLE.write_text(current_table(), encoding="utf-8")
    except UsageError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
