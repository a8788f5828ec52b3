"""The image's SBOM, of a small root file system and of packages made here; tests/container looks at the real one."""

import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from export.supply.debian import components_of_base
from export.supply.installed import archives_of, components_of_packages
from export.supply.sbom import of_bundle, program, write_sbom
from infer.bundle.load import load_bundle
from tests.infer.runs import TINY

WHEN = dt.datetime(2026, 11, 28, 1, 2, 3, tzinfo=dt.UTC)
STATUS = """\
Package: libc6
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u10
Description: GNU C Library: Shared libraries
 Contains the standard libraries.

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1:1.0
Description: nothing is left of it

Package: login
Status: install ok installed
Maintainer: Shadow
Architecture: amd64
Source: shadow (1:4.13+dfsg1-1)
Version: 1:4.13+dfsg1-1+b1
Description: system login tools
"""
OWN_SBOM = {
    "components": [
        {"type": "library", "name": "brings", "version": "2.0", "purl": "pkg:pypi/brings@2.0?file_name=x"},
        {"type": "library", "name": "libtiff", "version": "4.7.2"},
        {"type": "library", "name": "nameless"},
    ]
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "var/lib/dpkg").mkdir(parents=True)
    (folder / "etc").mkdir()
    (folder / "var/lib/dpkg/status").write_text(STATUS)
    (folder / "etc/os-release").write_text('PRETTY_NAME="Debian 12"\nID=debian\n# x\nVERSION_ID="12"\n')
    return folder


def write_package(site: Path, name: str, metadata: str, files: dict[str, bytes] | None = None) -> None:
    info = f"{name.replace('-', '_')}-2.0.dist-info"
    content = {f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: 2.0\n{metadata}".encode()}
    content |= {path.replace("INFO", info): data for path, data in (files or {}).items()}
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in content).encode()
    for path, data in content.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site-packages"
    files = {"brings.libs/libx-1.so": b"machine code", "INFO/sboms/own.cdx.json": json.dumps(OWN_SBOM).encode()}
    write_package(folder, "Brings", "License-Expression: MIT AND Zlib\nSummary: it brings\n", files)
    write_package(folder, "old_words", "License: Some words\n")
    write_package(folder, "whole-text", f"License: {'x ' * 99}\nClassifier: License :: OSI Approved :: BSD License\n")
    write_package(folder, "says.nothing", "")
    return folder


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def by_name(components: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in components}


def test_the_whole_is_valid_cyclonedx(root: Path, site: Path, tmp_path: Path) -> None:
    components = [
        program(),
        of_bundle(load_bundle(TINY)),
        *components_of_base(root),
        *components_of_packages([site], {}),
    ]
    write_sbom(tmp_path / "sbom.json", components, "base:1@sha256:0", WHEN)
    text = (tmp_path / "sbom.json").read_text(encoding="utf-8")
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, str(problem)[:500]
    found = content(tmp_path / "sbom.json")
    references = [one["bom-ref"] for one in found["components"]]
    references += [part["bom-ref"] for one in found["components"] for part in one.get("components", [])]
    assert len(set(references)) == len(references) > 10
    (dependencies,) = found["dependencies"]
    assert dependencies["dependsOn"] == sorted(one["bom-ref"] for one in found["components"])
    assert found["metadata"]["timestamp"] == "2026-11-28T01:02:03Z"
    assert found["metadata"]["component"]["properties"] == [{"name": "lympho:base_image", "value": "base:1@sha256:0"}]


def test_the_same_content_is_the_same_bytes_and_other_content_another_serial_number(
    root: Path, site: Path, tmp_path: Path
) -> None:
    components = [program(), *components_of_base(root), *components_of_packages([site], {})]
    for name, which in (("a", components), ("b", components[::-1]), ("c", components[1:])):
        write_sbom(tmp_path / name, which, "base:1", WHEN)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert json.loads(a)["serialNumber"] != json.loads(c)["serialNumber"]


def test_the_base(root: Path) -> None:
    found = by_name(list(components_of_base(root)))
    assert set(found) == {"debian", "CPython", "libc6", "login"}
    assert (found["debian"]["type"], found["debian"]["version"]) == ("operating-system", "12")
    purl = "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc%402.36-9%2Bdeb12u10"
    assert found["libc6"]["purl"] == purl
    assert found["libc6"]["description"] == "GNU C Library: Shared libraries"
    assert found["login"]["purl"].endswith("&upstream=shadow%401%3A4.13%2Bdfsg1-1")
    assert found["login"]["version"] == "1:4.13+dfsg1-1+b1"


def test_the_packages(site: Path) -> None:
    report = {
        "install": [
            {"metadata": {"name": "Brings"}, "download_info": {"archive_info": {"hashes": {"sha256": "a" * 64}}}},
        ]
    }
    found = by_name(list(components_of_packages([site], archives_of(report))))
    assert set(found) == {"brings", "old-words", "whole-text", "says-nothing"}
    assert found["brings"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert found["brings"]["licenses"] == [{"expression": "MIT AND Zlib"}]
    assert found["old-words"]["licenses"] == [{"license": {"name": "Some words"}}]
    assert found["whole-text"]["licenses"] == [{"license": {"name": "BSD License"}}]
    assert "licenses" not in found["says-nothing"]
    parts = by_name(found["brings"]["components"])
    assert set(parts) == {"libtiff", "brings.libs/libx-1.so"}
    digest = hashlib.sha256(b"machine code").hexdigest()
    assert parts["brings.libs/libx-1.so"]["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_the_bundle_with_every_file() -> None:
    bundle = load_bundle(TINY)
    found = of_bundle(bundle)
    assert (found["type"], found["version"]) == ("machine-learning-model", bundle.short_id)
    assert found["hashes"] == [{"alg": "SHA-256", "content": bundle.bundle_id}]
    digests = {one["name"]: one["hashes"][0]["content"] for one in found["components"]}
    assert digests == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in TINY.iterdir()}
