"""The interface of a member: its graphs, their outputs per picture, and how a patient's pictures are aggregated.

A new member is one subclass and one line in registry.py. Nothing outside this package knows a member's name.
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
# Of the graphs that take pictures. A bundle may have replacements for some graphs in a lower precision.
Precision = Literal["float32", "int8"]
Input = tuple[str, tuple[int, ...]]  # type, axes after the batch
CLINICAL: Input = ("tensor(float)", (3,))
ONE_NUMBER: Input = ("tensor(float)", ())
Sums = TypeVar("Sums")


@dataclass(frozen=True)
class GraphForm:
    """A graph's inputs and outputs. A bundle whose graph differs is refused."""

    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Opinion:
    """A member's output for one patient."""

    probability: float  # of malignant; raw, not calibrated
    # For each picture in order, the probability of the patient without it; empty for a patient of one picture.
    without: tuple[float, ...] = ()
    further: Mapping[str, float | int] = field(default_factory=dict)  # other values, for its columns and its self-test
    measures: Mapping[str, float] = field(default_factory=dict)  # by the names in the manifest's reference


class RunGraph(Protocol):
    """Runs one of the member's graphs, given its file name, and returns all outputs by name."""

    def __call__(self, file: str, /, **inputs: Any) -> dict[str, Floats]: ...


class NoSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest's section of a member that consists of graphs only."""


class Member(ABC, Generic[Sums]):
    """A model of the ensemble.

    A patient's pictures are added one by one, in order and in double precision: a result must not depend on how the
    pictures were split into batches.
    """

    name: ClassVar[str]  # in the manifest, and in the column {name}_probability
    title: ClassVar[str]  # for people
    Section: ClassVar[type[msgspec.Struct]] = NoSection  # in the manifest, apart from graphs, calibration and weight
    # Graphs that replace others in a reduced precision: file -> file of the replacement.
    stand_ins: ClassVar[Mapping[Precision, Mapping[str, str]]] = {}
    # Outputs of the self-test that depend on these replacements, by precision.
    reduced_outputs: ClassVar[Mapping[Precision, tuple[str, ...]]] = {}
    # Outputs of the self-test that are not probabilities: the largest tolerance that a bundle may state for them.
    unbounded_outputs: ClassVar[Mapping[str, float]] = {}
    picture_columns: ClassVar[tuple[Column, ...]] = ()  # of images.csv; `add` returns their values
    patient_columns: ClassVar[tuple[Column, ...]] = ()  # of predictions.csv; values from `Opinion.further`
    # Position of its columns in predictions.csv: the first three members have theirs in the middle, the fourth behind
    # what was at the end when it came, and so will every later one, so that existing columns do not move.
    place_of_columns: ClassVar[Literal["middle", "behind bundle", "last"]] = "last"
    # Columns of predictions.csv that it got later than those: at the end, so that no column moves.
    columns_at_end: ClassVar[tuple[Column, ...]] = ()

    def __init__(self, section: Any, crop_size: int) -> None:
        self.section = section
        self.crop_size = crop_size

    @classmethod
    def load(cls, section: Mapping[str, Any], crop_size: int) -> Self:
        """The member as a bundle describes it.

        Args:
            section: the member's section of the manifest, as decoded JSON.
            crop_size: side of the square pictures, in pixels.

        Raises:
            msgspec.ValidationError: a field is missing, unknown or of a wrong type.
            ValueError: a value is not allowed.
        """
        read = msgspec.convert(dict(section), cls.Section)
        cls.check(read)
        return cls(read, crop_size)

    @classmethod
    def check(cls, section: Any) -> None:
        """Check what the types of a section cannot express.

        Raises:
            ValueError: a value is not allowed.
        """
        del section

    @classmethod
    def probability_column(cls) -> Column:
        """The column of its probability in predictions.csv."""
        meaning = f"Probability of malignancy from the {cls.title} alone, calibrated"
        return Column(f"{cls.name}_probability", meaning, "", ".6f")

    @classmethod
    def further_columns(cls) -> tuple[Column, ...]:
        """All its columns in predictions.csv beside its probability's, wherever they stand."""
        return (*cls.patient_columns, *cls.columns_at_end)

    @property
    def measure_names(self) -> tuple[str, ...]:
        """The names of the measures in its opinions."""
        return ()

    @property
    def pictures(self) -> Input:
        """The input of a graph that takes pictures."""
        return "tensor(uint8)", (self.crop_size, self.crop_size, 3)

    @property
    @abstractmethod
    def graphs(self) -> dict[str, GraphForm]:
        """Its graphs in float32: file -> form."""

    @abstractmethod
    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        """The outputs for a batch of pictures: output -> (N, ...).

        Args:
            pictures: (N, size, size, 3) uint8, to be passed to the graphs.
            clinical: (N, 3) of their patients: sex (F = 1), count in 10^9/L, age in years.
        """

    @abstractmethod
    def begin(self) -> Sums:
        """The sums of a patient before its first picture."""

    @abstractmethod
    def add(self, sums: Sums, seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        """Add one picture: one row of what `see` returned.

        Returns:
            The values of its columns in images.csv, as plain Python numbers: the journal accepts no others.
        """

    @abstractmethod
    def conclude(self, sums: Sums, run: RunGraph, clinical: Floats) -> Opinion:
        """The output for a patient whose pictures have all been added.

        Args:
            clinical: (3,) as in `see`.
        """

    @abstractmethod
    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        """The flat arrays that the self-test compares: single pictures, and each as a patient of one picture."""


class Mean:
    """A running mean in double precision, which can leave out each of its values in turn."""

    def __init__(self) -> None:
        self.total: Any = 0.0
        self.values: list[Any] = []

    def add(self, value: Any) -> None:
        """Add one value: a number, or an array of always the same shape."""
        self.total = self.total + np.float64(value)
        self.values.append(value)

    @property
    def value(self) -> Any:
        """The mean of all values."""
        return self.total / len(self.values)

    def without_each(self) -> Floats:
        """The means without each value in turn, in order: (N, ...); (0,) if there is only one value."""
        if len(self.values) < 2:
            return np.zeros(0)
        return np.asarray((self.total - np.array(self.values, np.float64)) / (len(self.values) - 1))
