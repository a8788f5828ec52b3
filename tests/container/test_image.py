"""What the image consists of, as its SBOM says it, and that another build of the same files gives the same image."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from export.supply.installed import one_name
from export.supply.locks import CUDA, CUDA_RAY, RAY, RUNTIME, read_lock
from infer.bundle.load import load_bundle
from infer.output.audit import program_digest
from tests.container.test_container import IMAGE, RAY_IMAGE, ROOT, docker, in_the_image

BUNDLE = ROOT / os.environ.get("BUNDLE", "infer/reference")
OTHER_UMASK = 0o002  # of whoever builds


@pytest.fixture(scope="module", params=[pytest.param(IMAGE, id="plain"), pytest.param(RAY_IMAGE, id="ray")])
def image(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sbom(image: str) -> str:
    done = docker("run", "--rm", "--network=none", "--entrypoint=cat", image, "/app/sbom.cdx.json")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def components(sbom: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(sbom)["components"]
    return found


def test_the_sbom_is_valid_cyclonedx(sbom: str) -> None:
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom)
    assert problem is None, str(problem)[:500]


def test_the_sbom_holds_every_python_package_with_a_hash_of_the_lock(
    image: str, components: list[dict[str, Any]]
) -> None:
    program = (
        "import importlib.metadata as m; print(*(f\"{d.metadata['Name']}=={d.version}\" for d in m.distributions()))"
    )
    installed = dict(one.split("==") for one in in_the_image(program, image).split())
    listed = {one["name"]: one for one in components if one.get("purl", "").startswith("pkg:pypi/")}
    locked = read_lock(CUDA_RAY) | read_lock(RAY) | read_lock(CUDA) | read_lock(RUNTIME)
    for name, version in installed.items():
        one = listed[one_name(name)]
        assert one["version"] == version
        assert one["licenses"]
        (its,) = [locked for locked in locked[one_name(name)] if locked.version == version]
        assert f"sha256:{one['hashes'][0]['content']}" in its.hashes
    assert len(installed) >= 10


def test_the_sbom_holds_every_debian_package_and_python(image: str, components: list[dict[str, Any]]) -> None:
    line = ("--entrypoint=dpkg-query", image, "-W", "-f=${Package} ${Version} ${db:Status-Status}\n")
    done = docker("run", "--rm", "--network=none", *line)
    installed = {tuple(one.split()[:2]) for one in done.stdout.splitlines() if one.endswith(" installed")}
    assert len(installed) > 50
    listed = {(one["name"], one["version"]) for one in components if one.get("purl", "").startswith("pkg:deb/")}
    assert listed == installed
    (python,) = [one for one in components if one["name"] == "CPython"]
    assert python["version"] == in_the_image("import platform; print(platform.python_version())", image)


def test_the_sbom_names_program_and_bundle(components: list[dict[str, Any]]) -> None:
    bundle = load_bundle(BUNDLE)
    (model,) = [one for one in components if one["type"] == "machine-learning-model"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": bundle.bundle_id}]
    assert {one["name"] for one in model["components"]} == {path.name for path in BUNDLE.iterdir()}
    (program,) = [one for one in components if one["type"] == "application"]
    assert program["properties"] == [{"name": "lympho:program_digest", "value": program_digest()}]


def layers(image: str) -> list[str]:
    done = docker("image", "inspect", "--format={{json .RootFS.Layers}}", image)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_another_build_has_the_same_layers(tmp_path: Path) -> None:
    """Later, of files with other times and modes, and without anything that the first build left in the cache."""
    name = f"lympho-test-again-{os.getpid()}"
    line = ["make", "image", f"IMAGE={name}", f"BUILD={tmp_path}", "IMAGE_OPTIONS=--no-cache"]
    before = os.umask(OTHER_UMASK)
    try:
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    finally:
        os.umask(before)
    try:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert layers(name) == layers(IMAGE)
        assert len(layers(name)) >= 3
    finally:
        docker("image", "rm", name)
