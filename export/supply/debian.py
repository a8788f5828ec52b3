"""The base image: its system, its Python, its Debian packages, as components of CycloneDX.

Debian says who made a package and from which source, not its licence: that stands in /usr/share/doc in the image.
"""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

STATUS, RELEASE = Path("var/lib/dpkg/status"), Path("etc/os-release")
Component = dict[str, Any]


def components_of_base(root: Path) -> Iterator[Component]:
    """The operating system, CPython, and every installed Debian package.

    Args:
        root: of the image's file system.

    Raises:
        OSError: the system does not say what it is.
    """
    release = dict(_assignments((root / RELEASE).read_text(encoding="utf-8")))
    name, version = release["ID"], release.get("VERSION_ID", "")
    yield {
        "type": "operating-system",
        "bom-ref": f"os:{name}@{version}",
        "name": name,
        "version": version,
        "description": release.get("PRETTY_NAME", name),
    }
    yield _python()
    distribution = f"{name}-{version}" if version else name
    status = root / STATUS
    for package in _paragraphs(status.read_text(encoding="utf-8")) if status.exists() else ():
        if package.get("Status", "").split()[-1:] == ["installed"]:
            yield _package(package, name, distribution)


def _python() -> Component:
    version = platform.python_version()
    purl = f"pkg:generic/python@{version}"
    return {
        "type": "platform",
        "bom-ref": purl,
        "name": "CPython",
        "version": version,
        "description": "Of the base image; a Debian package too where the base is Debian's own.",
        "licenses": [{"license": {"id": "Python-2.0"}}],
        "purl": purl,
    }


def _package(package: dict[str, str], vendor: str, distribution: str) -> Component:
    name, version, architecture = package["Package"], package["Version"], package["Architecture"]
    source, _, of_source = package.get("Source", name).partition(" ")
    # Advisories are of source packages.
    upstream = f"{source}@{of_source.strip('()') or version}"
    qualifiers = f"arch={architecture}&distro={distribution}&upstream={quote(upstream, safe='')}"
    purl = f"pkg:deb/{vendor}/{quote(name, safe='')}@{quote(version, safe='')}?{qualifiers}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "description": package.get("Description", ""),
        "supplier": {"name": package.get("Maintainer", vendor)},
        "purl": purl,
    }


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Debian's control format: fields of one line each; of longer ones the first."""
    for paragraph in text.split("\n\n"):
        fields = [line.partition(": ") for line in paragraph.splitlines() if line and line[0] not in " \t"]
        if fields:
            yield {name: value.strip() for name, _, value in fields}


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            yield name, value.strip().strip("\"'")
