"""Export of the backbone, whose features several members stand on: one graph for all of them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.graphs import GraphPlan
from export.members.member import example_images
from infer.errors import UsageError
from infer.members.backbone import BACKBONE
from train.members.embedding import FrozenBackbone, load_backbone, weights_digest
from train.members.imagenet import MAGNIFICATION
from train.members.training import NUMBERS

UNBOUNDED = frozenset({"features"})


@cache
def backbone() -> FrozenBackbone:
    """The network, loaded once."""
    return load_backbone(MAGNIFICATION)


def backbone_plan() -> GraphPlan:
    """Pictures (N, 112, 112, 3) in, features (N, 1280) out; the resizing is inside."""
    return GraphPlan(BACKBONE, backbone(), {"images": example_images()}, ("features",))


def features_of(images: Tensor) -> Tensor:
    """Features (N, 1280) of pictures (N, 112, 112, 3)."""
    with torch.inference_mode():
        return backbone()(images)  # type: ignore[no-any-return]


def fitted_with(folder: Path) -> Mapping[str, Any]:
    """The numbers that a member on the backbone was fitted with.

    Args:
        folder: the member's in the run folder.

    Raises:
        UsageError: it was fitted on another backbone than the one that is exported.
    """
    numbers: dict[str, Any] = json.loads((folder / NUMBERS).read_text())
    if (numbers["weights_sha256"], numbers["magnification"]) != (weights_digest(), asdict(MAGNIFICATION)):
        raise UsageError(f"{folder}: was fitted on another backbone. Run `python -m train all` again")
    return numbers
