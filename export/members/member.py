"""What a member is to export: graphs, a section of the manifest, and words for the model card.

A new member is one class of this kind and one line in registry.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from export.graphs import CROP, GraphPlan

Inputs = dict[str, Tensor]


class MemberExport(ABC):
    """A trained member. Making one loads its networks from the run folder."""

    name: ClassVar[str]  # as in infer.members
    # Outputs of its graphs that are no probabilities: parity holds them against the largest value.
    unbounded: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def __init__(self, run: Path) -> None: ...

    @property
    @abstractmethod
    def plans(self) -> list[GraphPlan]:
        """Its graphs in float32."""

    @abstractmethod
    def inputs(self, images: Tensor, clinical: Tensor) -> dict[str, Inputs]:
        """What parity puts through each graph, made of pictures (N, 112, 112, 3) and clinical values (N, 3).

        The network is in inference mode.
        """

    @abstractmethod
    def section(self) -> dict[str, Any]:
        """Its section of the manifest, as plain JSON."""

    @abstractmethod
    def described(self) -> str:
        """What it is: a clause of the model card."""

    def int8(self, crops: Tensor) -> dict[str, bytes]:
        """Its graphs in 8-bit integers: file -> bytes.

        Args:
            crops: (N, 112, 112, 3) uint8 training pictures.
        """
        del crops
        return {}

    def numbers(self) -> dict[str, Any]:
        """Numbers that decide it and stand in no recipe, for the provenance."""
        return {}

    def noted(self, inputs: Mapping[str, Inputs]) -> list[str]:
        """What export changed beside rounding: sentences for the card.

        Raises:
            ParityError: it changed too much.
        """
        del inputs
        return []


def example_images() -> Tensor:
    """Two pictures, as an example of a graph's input."""
    return torch.zeros(2, *CROP, dtype=torch.uint8)


def example_clinical() -> Tensor:
    """Two patients' clinical values."""
    return torch.ones(2, 3)
