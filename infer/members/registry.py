"""The list of all members. A bundle names those that it has."""

from typing import Any

from infer.members.baseline import Baseline
from infer.members.imagenet import ImageNet
from infer.members.member import Member
from infer.members.mixture import Mixture
from infer.members.scan import Scan

MEMBERS: list[type[Member[Any]]] = [Baseline, Scan, Mixture, ImageNet]  # the order of the columns and of the ensemble


def names() -> tuple[str, ...]:
    """The names of all members."""
    return tuple(kind.name for kind in MEMBERS)
