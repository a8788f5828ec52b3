"""Pins the base image in the Dockerfile: asks its registry for the digest that the tag has, and checks what it says.

A digest names the bytes: whoever answers for the registry later can hand out no other image. The registry's interface:
https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import hashlib
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from export.supply.locks import ROOT
from infer.errors import LymphoError, UsageError

DOCKERFILE = ROOT / "Dockerfile"
LINE = re.compile(r"^ARG BASE_IMAGE=(.*)$", re.MULTILINE)
REFERENCE = re.compile(r"(?P<name>[a-z0-9][\w./:-]*?):(?P<tag>\w[\w.-]{0,127})(?:@(?P<digest>sha256:[0-9a-f]{64}))?")
HUB, HUB_REGISTRY = "docker.io", "registry-1.docker.io"  # names without a host are Docker Hub's
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
PLATFORM = ("linux", "amd64")
LOCAL = ("localhost", "127.0.0.1")  # asked without TLS, as Docker does
SECONDS = 30.0
MOST_BYTES = 4 << 20  # of a manifest, as the specification advises


@dataclass(frozen=True)
class Reference:
    """An image's name."""

    name: str  # with the registry's host, if it has one
    tag: str
    digest: str = ""  # sha256:...; empty: not pinned

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def registry(self) -> str:
        """URL of its repository at its registry."""
        host, slash, path = self.name.partition("/")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            host, path = HUB, self.name
        if host == HUB:
            host, path = HUB_REGISTRY, path if "/" in path else f"library/{path}"
        scheme = "http" if host.partition(":")[0] in LOCAL else "https"
        return f"{scheme}://{host}/v2/{path}"


def parse(text: str) -> Reference:
    """An image's name, which must have a tag and may have a digest.

    Raises:
        UsageError: it is none, or has no tag.
    """
    if (match := REFERENCE.fullmatch(text)) is None:
        raise UsageError(f"{text}: is no image's name with a tag, such as python:3.11-slim-bookworm")
    return Reference(match["name"], match["tag"], match["digest"] or "")


def base_of(dockerfile: Path) -> Reference:
    """The base image that a Dockerfile builds on unless told otherwise.

    Raises:
        UsageError: it does not say so in one line.
        OSError: it cannot be read.
    """
    found = LINE.findall(dockerfile.read_text(encoding="utf-8"))
    if len(found) != 1:
        raise UsageError(f"{dockerfile}: has {len(found)} lines ARG BASE_IMAGE=, and one is needed")
    return parse(found[0])


def pin(dockerfile: Path, base: Reference) -> None:
    """Write a base image into a Dockerfile.

    Raises:
        OSError: it cannot be written.
    """
    text = dockerfile.read_text(encoding="utf-8")
    dockerfile.write_text(LINE.sub(f"ARG BASE_IMAGE={base}", text), encoding="utf-8")


def digest_of_tag(image: Reference) -> str:
    """The digest that an image's tag has at its registry now: computed from what it sends, not believed.

    It is that of the index over all platforms if there is one, and the manifest for linux/amd64 is fetched, too.

    Raises:
        LymphoError: the registry cannot be reached, or knows no such image for this platform, or what it sends is not
            what its digest says.
    """
    content, digest = _manifest(image, image.tag)
    if content.get("mediaType") in MANIFESTS or "layers" in content:
        return digest
    found = [one["digest"] for one in content.get("manifests", []) if _platform(one) == PLATFORM]
    if len(found) != 1:
        raise LymphoError(f"{image}: has {len(found)} images for {'/'.join(PLATFORM)}, and one is needed")
    if _manifest(image, found[0])[1] != found[0]:
        raise LymphoError(f"{image}: the registry sends another image than {found[0]}. Do not use it")
    return digest


def _platform(entry: dict[str, Any]) -> tuple[str, str]:
    platform = entry.get("platform", {})
    return platform.get("os", ""), platform.get("architecture", "")


def _manifest(image: Reference, which: str) -> tuple[dict[str, Any], str]:
    """A manifest by tag or digest, and its digest."""
    url = f"{image.registry}/manifests/{which}"
    try:
        data, said = _get(url, {"Accept": ", ".join((*INDEXES, *MANIFESTS))})
    except (OSError, ValueError, KeyError) as error:  # urllib's errors are OSErrors; no token in the answer
        raise LymphoError(f"{url}: cannot be fetched ({error}). Is the registry within reach?") from error
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if said not in ("", digest):
        raise LymphoError(f"{url}: is said to have the digest {said}, and has {digest}. Do not use it")
    try:
        content = json.loads(data)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise LymphoError(f"{url}: is no manifest")
    return content, digest


def _get(url: str, headers: dict[str, str]) -> tuple[bytes, str]:
    """The content, and the digest that the registry says it has; asks for a token where one is needed."""
    try:
        return _open(url, headers)
    except urllib.error.HTTPError as error:
        asked = error.headers.get("WWW-Authenticate", "")
        if error.code != 401 or not asked.startswith("Bearer "):
            raise
    fields = dict(re.findall(r'(\w+)="([^"]*)"', asked))
    realm = fields.pop("realm")
    token = json.loads(_open(f"{realm}?{urllib.parse.urlencode(fields)}", {})[0])
    return _open(url, headers | {"Authorization": f"Bearer {token.get('token') or token['access_token']}"})


def _open(url: str, headers: dict[str, str]) -> tuple[bytes, str]:
    host = urllib.parse.urlsplit(url).hostname or ""
    if not url.startswith("https://") and host not in LOCAL:
        raise ValueError(f"{url} is not encrypted")
    proxies = urllib.request.ProxyHandler({} if host in LOCAL else None)
    with urllib.request.build_opener(proxies).open(
        urllib.request.Request(url, headers=headers), timeout=SECONDS
    ) as got:
        data = got.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError("it is too long for a manifest")
        return data, got.headers.get("Docker-Content-Digest", "")


@click.command()
@click.option("--dockerfile", type=click.Path(path_type=Path), default=DOCKERFILE, help="To be pinned.")
@click.option("--image", help="Another base image, NAME:TAG.  [default: that of the Dockerfile]")
@click.option("--check", is_flag=True, help="Change nothing; end with 1 if the tag has another digest by now.")
def command(dockerfile: Path, image: str | None, check: bool) -> None:
    """Write into the Dockerfile which image its base's tag names now."""
    try:
        old = base_of(dockerfile)
        base = parse(image) if image else old
        new = replace(base, digest=digest_of_tag(base))
        if check and new != old:
            raise LymphoError(f"{dockerfile}: builds on {old}, and the tag names {new} now. Run make pin-base")
        if not check:
            pin(dockerfile, new)
    except LymphoError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None
    click.echo(new)


if __name__ == "__main__":
    command()
