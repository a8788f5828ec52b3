"""The interface of an ensemble member in export: graphs, a section of the manifest, and text for the model card.

To add a member, define one subclass and add one line to registry.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from export.graphs import CROP, GraphPlan
from train.core.arrays import Classes, Floats
from train.data.bags import Bags

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class MemberCard:
    """What the model card says of a member."""

    name: str
    described: str  # what it is: a clause
    pictures_only: str  # what gives its probability without sex, count and age: a clause
    details: tuple[str, ...] = ()  # sentences below the list of members
    factors: tuple[str, ...] = ()  # paragraphs on what it depends on
    evaluation: tuple[str, ...] = ()  # sentences on what it saw of held-out patients
    training: tuple[str, ...] = ()  # sentences on its training
    caveats: tuple[str, ...] = ()  # paragraphs


class MemberExport(ABC):
    """A trained member. The constructor loads its networks from the run folder."""

    name: ClassVar[str]  # as in infer.members
    # Graph outputs that are not probabilities: the parity check compares them relative to the largest value.
    unbounded: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    @abstractmethod
    def load(cls, run: Path) -> Self:
        """The member as a run folder holds it, its networks in evaluation mode."""

    @property
    @abstractmethod
    def plans(self) -> list[GraphPlan]:
        """Its float32 graphs; the backbone among them, if it stands on that."""

    @abstractmethod
    def inputs(self, images: Tensor, clinical: Tensor, features: Tensor) -> dict[str, Inputs]:
        """Inputs of each graph for the parity check, by graph name.

        Args:
            images: (N, 112, 112, 3) uint8.
            clinical: (N, 3) raw clinical values.
            features: (N, 1280) of the pictures, from the backbone.
        """

    @abstractmethod
    def section(self) -> dict[str, Any]:
        """Its section of the manifest, as plain JSON."""

    @abstractmethod
    def card(self, run: Path) -> MemberCard:
        """What the model card says of it.

        Args:
            run: the run folder.
        """

    def numbers(self) -> dict[str, Any]:
        """What it was fitted with, by its name, for the provenance; empty if all of that is in the run's recipe."""
        return {}

    def measures(self, run: Path, bags: Bags) -> dict[str, Floats]:
        """What it measures on each training patient, (P,) by name; as `Opinion.measures` in scoring."""
        del run, bags
        return {}

    def picture_classes(self, run: Path) -> Classes | None:
        """The class that it gives each training picture, (N,) in the cache's order; None if it has no classes."""
        del run
        return None

    def noted(self, inputs: Mapping[str, Inputs]) -> list[str]:
        """Changes made by export, other than rounding errors: sentences for the model card.

        Args:
            inputs: as from `inputs`.

        Raises:
            ParityError: the change is too large.
        """
        del inputs
        return []


def example_images() -> Tensor:
    """Two pictures, as example input of a graph."""
    return torch.zeros(2, *CROP, dtype=torch.uint8)


def example_clinical() -> Tensor:
    """Clinical values of two patients, as example input of a graph."""
    return torch.ones(2, 3)
