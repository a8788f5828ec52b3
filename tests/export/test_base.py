"""The base image's digest, from a registry that the test itself is."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from export.supply.base import DOCKERFILE, INDEXES, MANIFESTS, Reference, base_of, command, parse
from infer.errors import UsageError

AMD64 = {"os": "linux", "architecture": "amd64"}
TOKEN = "only-for-pulling"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry(ThreadingHTTPServer):
    """Knows one image. Answers only who has asked for a token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.manifest = json.dumps({"mediaType": MANIFESTS[0], "layers": []}).encode()
        self.says: str | None = None  # as Docker-Content-Digest; None: the truth
        self.platforms: list[dict[str, str]] = [{"os": "linux", "architecture": "arm64"}, AMD64]
        self.accepted: list[str] = []

    @property
    def index(self) -> bytes:
        listed = [{"digest": digest_of(self.manifest), "platform": one} for one in self.platforms if one == AMD64]
        listed += [{"digest": digest_of(b"{}"), "platform": one} for one in self.platforms if one != AMD64]
        return json.dumps({"mediaType": INDEXES[0], "manifests": listed}).encode()

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server_port}/base/python"


class Answer(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        here = f"http://127.0.0.1:{self.server.server_port}"
        if self.path == "/token?service=here&scope=repository%3Abase%2Fpython%3Apull":
            self.answer(200, json.dumps({"token": TOKEN}).encode())
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            realm = f'Bearer realm="{here}/token",service="here",scope="repository:base/python:pull"'
            self.answer(401, b"", {"WWW-Authenticate": realm})
        elif self.path == "/v2/base/python/manifests/3.11":
            self.server.accepted.append(self.headers["Accept"])
            said = digest_of(self.server.index) if self.server.says is None else self.server.says
            self.answer(200, self.server.index, {"Docker-Content-Digest": said} if said else {})
        elif self.path.startswith("/v2/base/python/manifests/sha256:"):
            self.answer(200, self.server.manifest)
        else:
            self.answer(404, b"")

    def answer(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def dockerfile(tmp_path: Path, registry: Registry) -> Path:
    path = tmp_path / "Dockerfile"
    text = DOCKERFILE.read_text(encoding="utf-8")
    path.write_text(text.replace(str(base_of(DOCKERFILE)), f"{registry.name}:3.11"), encoding="utf-8")
    return path


def pin_base(dockerfile: Path, *options: str) -> Result:
    return CliRunner().invoke(command, ["--dockerfile", str(dockerfile), *options])


def test_the_dockerfile_names_a_base_that_can_be_pinned() -> None:
    """One line, which the Makefile reads; a digest, where there is one, has 64 digits."""
    base = base_of(DOCKERFILE)
    assert (base.name, base.tag) == ("python", "3.11-slim-bookworm")
    assert re.fullmatch(r"|sha256:[0-9a-f]{64}", base.digest)
    assert base.registry.endswith("/v2/library/python")
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE_IMAGE}"] * 2
    makefile = (DOCKERFILE.parent / "Makefile").read_text(encoding="utf-8")
    assert "python:3.11" not in makefile


def test_the_digest_is_written_and_nothing_else(registry: Registry, dockerfile: Path) -> None:
    before = dockerfile.read_text(encoding="utf-8")
    done = pin_base(dockerfile)
    assert done.exit_code == 0, done.output
    expected = f"{registry.name}:3.11@{digest_of(registry.index)}"
    assert done.output == f"{expected}\n"
    assert dockerfile.read_text(encoding="utf-8") == before.replace(f"{registry.name}:3.11", expected)
    assert set(registry.accepted[0].split(", ")) == {*INDEXES, *MANIFESTS}
    assert pin_base(dockerfile).output == done.output  # a pinned one is pinned anew


def test_a_tag_that_moved_is_told(registry: Registry, dockerfile: Path) -> None:
    pin_base(dockerfile)
    before = dockerfile.read_text(encoding="utf-8")
    assert pin_base(dockerfile, "--check").exit_code == 0
    registry.manifest = json.dumps({"mediaType": MANIFESTS[0], "layers": [{}]}).encode()
    done = pin_base(dockerfile, "--check")
    assert (done.exit_code, "the tag names" in done.output) == (1, True)
    assert dockerfile.read_text(encoding="utf-8") == before
    pin_base(dockerfile)
    assert base_of(dockerfile).digest == digest_of(registry.index)


def test_a_base_that_is_not_pinned_fails_the_check(dockerfile: Path) -> None:
    assert pin_base(dockerfile, "--check").exit_code == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"says": f"sha256:{'0' * 64}"}, "Do not use it"),
        ({"platforms": [{"os": "linux", "architecture": "arm64"}]}, "has 0 images for linux/amd64"),
    ],
)
def test_what_is_not_what_it_says_is_not_written(
    registry: Registry, dockerfile: Path, change: dict[str, Any], says: str
) -> None:
    before = dockerfile.read_text(encoding="utf-8")
    for name, value in change.items():
        setattr(registry, name, value)
    done = pin_base(dockerfile)
    assert done.exit_code == 1
    assert says in done.output
    assert dockerfile.read_text(encoding="utf-8") == before


def test_an_image_other_than_the_index_lists_is_not_written(
    registry: Registry, dockerfile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = registry.index
    monkeypatch.setattr(Registry, "index", property(lambda _: index))
    registry.manifest = b'{"layers": [1]}'
    done = pin_base(dockerfile)
    assert (done.exit_code, "sends another image" in done.output) == (1, True)


def test_a_registry_out_of_reach_is_1(registry: Registry, dockerfile: Path) -> None:
    for image in (f"{registry.name}:none", "127.0.0.1:1/base/python:3.11"):
        done = pin_base(dockerfile, "--image", image)
        assert (done.exit_code, "cannot be fetched" in done.output) == (1, True), image


@pytest.mark.parametrize(
    ("text", "registry"),
    [
        ("python:3.11-slim", "https://registry-1.docker.io/v2/library/python"),
        ("hospital/python:3.11", "https://registry-1.docker.io/v2/hospital/python"),
        ("registry.hospital.example/base/python:3.11", "https://registry.hospital.example/v2/base/python"),
        ("localhost:5000/python:3.11", "http://localhost:5000/v2/python"),
    ],
)
def test_names_of_images(text: str, registry: str) -> None:
    assert (str(parse(text)), parse(text).registry) == (text, registry)
    pinned = f"{text}@sha256:{'a' * 64}"
    assert parse(pinned) == Reference(parse(text).name, parse(text).tag, f"sha256:{'a' * 64}")


@pytest.mark.parametrize("text", ["python", "python@sha256:abc", "", "localhost:5000/python", "python:3.11@sha256:abc"])
def test_what_is_no_name_with_a_tag(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)
