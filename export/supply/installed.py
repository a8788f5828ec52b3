"""Installed Python packages as components of CycloneDX: licence, the archive that was installed, what it brings.

A wheel may bring libraries of others: as files (`*.libs`, by auditwheel), and in an SBOM of its own (PEP 770).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

Component = dict[str, Any]
LONGEST_LICENCE = 100  # characters; longer ones are the whole text
BRINGS = re.compile(r"[\w.-]+\.libs/[^/]+")
OWN_SBOM = re.compile(r"[^/]+\.dist-info/sboms/[^/]+\.json")


def components_of_packages(paths: Iterable[Path], archives: Mapping[str, str]) -> Iterator[Component]:
    """Every package in these folders.

    Args:
        paths: of site-packages.
        archives: SHA-256 of the archive that each package was installed from, by name in small letters with dashes.
    """
    for found in distributions(path=[str(path) for path in paths]):
        name, version = one_name(found.metadata["Name"]), found.version
        purl = f"pkg:pypi/{name}@{version}"
        component: Component = {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "description": _field(found, "Summary"),
            "purl": purl,
            "licenses": licences(found),
            "hashes": [{"alg": "SHA-256", "content": archives[name]}] if name in archives else [],
            "components": sorted(_brought(found, purl), key=lambda one: str(one["bom-ref"])),
        }
        yield {key: value for key, value in component.items() if value not in ("", [])}


def one_name(name: str) -> str:
    """A package's name as all of its spellings are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def archives_of(report: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 by package, from `pip install --report`."""
    return {
        one_name(one["metadata"]["name"]): one["download_info"]["archive_info"]["hashes"]["sha256"]
        for one in report["install"]
    }


def licences(found: Distribution) -> list[dict[str, Any]]:
    """CycloneDX's field: an SPDX expression where the package gives one (PEP 639), else its own words."""
    if expression := _field(found, "License-Expression"):
        return [{"expression": expression}]
    words = _field(found, "License")
    if words and len(words) <= LONGEST_LICENCE and "\n" not in words:
        return [{"license": {"name": words}}]
    prefix = "License :: "
    named = [one.rpartition(" :: ")[2] for one in found.metadata.get_all("Classifier") or [] if one.startswith(prefix)]
    return [{"license": {"name": name}} for name in named]


def _field(found: Distribution, name: str) -> str:
    return str((found.metadata.get_all(name) or [""])[0])


def _brought(found: Distribution, purl: str) -> Iterator[Component]:
    for file in found.files or []:
        if BRINGS.fullmatch(str(file)):
            digest = hashlib.sha256(Path(str(file.locate())).read_bytes()).hexdigest()
            yield {
                "type": "file",
                "bom-ref": f"{purl}#{file}",
                "name": str(file),
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
        elif OWN_SBOM.fullmatch(str(file)):
            yield from _of_own_sbom(json.loads(Path(str(file.locate())).read_text(encoding="utf-8")), purl, file.name)


def _of_own_sbom(content: Mapping[str, Any], purl: str, source: str) -> Iterator[Component]:
    """The libraries of others: those with a version that are not parts of the package itself."""
    for one in content.get("components", []):
        name, version, its = one["name"], one.get("version"), one.get("purl", "")
        if version and its.partition("?")[0].partition("#")[0] != purl:
            component = {"type": "library", "bom-ref": f"{purl}#{source}:{name}@{version}", "name": name}
            yield component | {"version": version} | ({"purl": its} if its else {})
