"""Where actors may run: so many a node, each with a GPU, or with some processors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Place:
    """Room for one actor."""

    node: str  # Ray's ID
    number: int  # of the places of this node
    processors: int
    gpus: int  # 0 or 1


def places(nodes: Iterable[Mapping[str, Any]], device: str, threads: int | None) -> list[Place]:
    """All places of a cluster.

    With GPUs, one for each of them, and the processors are shared equally; otherwise one of `threads` processors, or of
    all that the node has. A node with fewer processors than that has no place.

    Args:
        nodes: as Ray lists them.
        device: auto, cuda, cpu.
        threads: processors an actor; None: as said above.
    """
    found: list[Place] = []
    for node in nodes:
        if not node["Alive"]:
            continue
        processors, gpus = int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))
        if device == "cpu":
            gpus = 0
        elif device == "cuda" and not gpus:
            continue
        each = threads or max(processors // max(gpus, 1), 1)
        number = min(processors // each, gpus) if gpus else processors // each
        found += [Place(node["NodeID"], one, each, min(gpus, 1)) for one in range(number)]
    return found
