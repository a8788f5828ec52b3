"""What a member is to the rest of the program: its graphs, what they say of pictures, how a patient's pictures add up.

A new member is one class of this kind and one line in registry.py. Nothing outside this room knows a member's name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from infer.column import Column

Floats = npt.NDArray[np.floating]
# Of the graphs that see pictures. A bundle may have graphs that stand in for others in a lower precision.
Precision = Literal["float32", "int8", "float16"]
Input = tuple[str, tuple[int, ...]]  # type, axes after the batch
CLINICAL: Input = ("tensor(float)", (3,))
ONE_NUMBER: Input = ("tensor(float)", ())
Sums = TypeVar("Sums")


@dataclass(frozen=True)
class GraphForm:
    """What a graph takes and gives. A bundle whose graph has another form is refused."""

    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Opinion:
    """What a member says of one patient."""

    probability: float  # of malignant; raw, not calibrated
    further: Mapping[str, float | int] = field(default_factory=dict)  # what its columns and its self-test need beside


class RunGraph(Protocol):
    """Runs one of the member's graphs by its file's name: all outputs by name."""

    def __call__(self, file: str, /, **inputs: Any) -> dict[str, Floats]: ...


class NoSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest's section of a member that is all graphs."""


class Member(ABC, Generic[Sums]):
    """A model that takes part in the ensemble.

    A patient's pictures are added one by one, in their order, in double precision: a result must not depend on how
    pictures fell into batches.
    """

    name: ClassVar[str]  # in the manifest, and of the column NAME_probability
    title: ClassVar[str]  # for people
    Section: ClassVar[type[msgspec.Struct]] = NoSection  # of the manifest, beside graphs, calibration and weight
    # Graphs that take another's place in another precision: file -> file of the stand-in.
    stand_ins: ClassVar[Mapping[Precision, Mapping[str, str]]] = {}
    # Outputs of the self-test that depend on these graphs, by precision.
    reduced_outputs: ClassVar[Mapping[Precision, tuple[str, ...]]] = {}
    # Outputs of the self-test that are no probabilities: the largest tolerance a bundle may state for them.
    unbounded_outputs: ClassVar[Mapping[str, float]] = {}
    picture_columns: ClassVar[tuple[Column, ...]] = ()  # of images.csv; `add` gives their values
    patient_columns: ClassVar[tuple[Column, ...]] = ()  # of predictions.csv; values of `Opinion.further`
    # Where its columns of predictions.csv stand. Those of the first three members stand in the middle, as they did
    # when there were no others. A member that came later has them at the end, so that no column moves.
    columns_at_end: ClassVar[bool] = True

    def __init__(self, section: Any, crop_size: int) -> None:
        self.section = section
        self.crop_size = crop_size

    @classmethod
    def load(cls, section: Mapping[str, Any], crop_size: int) -> Self:
        """The member as a bundle describes it.

        Args:
            section: the manifest's, as decoded JSON.
            crop_size: side of the square pictures, in pixels.

        Raises:
            msgspec.ValidationError: a field is missing, unknown or of a wrong type.
            ValueError: a value cannot be.
        """
        read = msgspec.convert(dict(section), cls.Section)
        cls.check(read)
        return cls(read, crop_size)

    @classmethod
    def check(cls, section: Any) -> None:
        """What types cannot say of a section.

        Raises:
            ValueError: what is wrong.
        """
        del section

    @classmethod
    def probability_column(cls) -> Column:
        """Its probability in predictions.csv."""
        meaning = f"Probability of malignant from the {cls.title} alone, calibrated"
        return Column(f"{cls.name}_probability", meaning, "", ".6f")

    @property
    def pictures(self) -> Input:
        """The input of a graph that sees pictures."""
        return "tensor(uint8)", (self.crop_size, self.crop_size, 3)

    @property
    @abstractmethod
    def graphs(self) -> dict[str, GraphForm]:
        """Its graphs in float32: file -> form."""

    @abstractmethod
    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        """What it says of a batch of pictures: output -> (N, ...).

        Args:
            pictures: (N, size, size, 3) uint8, to be passed on to graphs.
            clinical: (N, 3) of their patients: sex (F = 1), count in 10^9/L, age in years.
        """

    @abstractmethod
    def begin(self) -> Sums:
        """The sums of a patient of whom no picture has been seen."""

    @abstractmethod
    def add(self, sums: Sums, seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        """Add one picture, a row of what `see` gave.

        Returns:
            The values of its columns in images.csv, as numbers of Python's own: the journal takes no others.
        """

    @abstractmethod
    def conclude(self, sums: Sums, run: RunGraph, clinical: Floats) -> Opinion:
        """What it says of a patient whose pictures have all been added.

        Args:
            clinical: (3,) as in `see`.
        """

    @abstractmethod
    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        """What the self-test compares, each flat: pictures alone, and each as a patient of one picture."""


class Mean:
    """A mean that is taken value by value."""

    def __init__(self) -> None:
        self.total: Any = 0.0
        self.number = 0

    def add(self, value: Any) -> None:
        """One more."""
        self.total = self.total + value
        self.number += 1

    @property
    def value(self) -> Any:
        """The mean of all."""
        return self.total / self.number
