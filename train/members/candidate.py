"""A model as the nested protocol sees it: trained on some patients, it gives others a probability."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

PROBABILITY = "probability"


@dataclass(frozen=True)
class Candidate:
    """A model: trained on some patients it gives others a probability.

    Members that differ in title and column alone share a training.
    """

    name: str  # of its file
    facts: Mapping[str, Any]  # every number its predictions depend on, beside the data and the patients
    # training patients, asked patients, checkpoint -> (asked,), or columns of such by name
    predict: Callable[[Indices, Indices, Path], Floats | Mapping[str, Floats]]
    repeated: bool = True  # in every repeat; members whose training takes long are in the first alone
    title: str = ""  # in tables; the name where there is none
    column: str = PROBABILITY  # of those predicted

    def __str__(self) -> str:
        return self.title or self.name


@dataclass(frozen=True)
class MeanOf:
    """A model that is not trained itself: the mean of several members' probabilities."""

    name: str  # in tables
    parts: tuple[Candidate, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def repeated(self) -> bool:
        """Whether all of its parts are in every repeat."""
        return all(part.repeated for part in self.parts)


Model = Candidate | MeanOf


def members_of(model: Model) -> tuple[Candidate, ...]:
    """Those that are trained for it."""
    return model.parts if isinstance(model, MeanOf) else (model,)
