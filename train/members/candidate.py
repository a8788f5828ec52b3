"""A model as the nested protocol sees it: trained on some patients, it predicts a probability for others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.core.arrays import Floats, Indices
from train.data.whose_pictures import OWN


@dataclass(frozen=True)
class Candidate:
    """A model that is trained on some patients and predicts a probability for others.

    Candidates that differ only in title and column share one training.
    """

    name: str  # part of its file names
    facts: Mapping[str, Any]  # everything its predictions depend on, apart from the data and the patients
    # training patients, patients to predict, checkpoint -> (patients to predict,), or several such columns by name:
    # those of train/data/whose_pictures.py if it sees pictures
    predict: Callable[[Indices, Indices, Path], Floats | Mapping[str, Floats]]
    repeated: bool = True  # evaluated in every repeat; members that are slow to train only in the first
    title: str = ""  # name in tables; by default `name`
    column: str = OWN  # which of the predicted columns is used
    clinical_only: bool = False  # sees no pictures

    def __str__(self) -> str:
        return self.title or self.name


@dataclass(frozen=True)
class MeanOf:
    """The mean of several candidates' probabilities. It needs no training of its own."""

    name: str  # name in tables
    parts: tuple[Candidate, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def repeated(self) -> bool:
        """Whether all of its parts are evaluated in every repeat."""
        return all(part.repeated for part in self.parts)


Model = Candidate | MeanOf


def members_of(model: Model) -> tuple[Candidate, ...]:
    """The candidates that have to be trained for a model."""
    return model.parts if isinstance(model, MeanOf) else (model,)
