"""Which member predicts whom from whom: outer folds, and inner ones within each outer training fold.

Predictions are kept by content (RUN/nested/predictions/MEMBER-KEY.csv): the same member, numbers, data and patients are
never trained twice, a call that was cut goes on, and several calls can share the work.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from train.core.checkpoint import progress_path
from train.core.files import held, write_table
from train.data.bags import Bags
from train.members.candidate import PROBABILITY, Candidate, Model, members_of

LOG = logging.getLogger("lympho")

OUTER, INNER = 5, 3  # folds

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outer:
    """An outer fold: patients to train and choose on, patients whose figures are reported, inner folds of the first.

    All are sorted indices.
    """

    repeat: int
    number: int
    training: Indices
    held_out: Indices
    inner: tuple[Indices, ...]  # held-out patients of each inner fold: together all of `training`


def outer_folds(labels: Indices, seed: int, repeats: int) -> list[Outer]:
    """Stratified by patient; repeat r is drawn with seed + r."""
    return [
        Outer(repeat, number, training, held_out, tuple(_inner(labels, training, seed + repeat)))
        for repeat in range(repeats)
        for number, (training, held_out) in enumerate(_folds(labels, OUTER, seed + repeat))
    ]


def _inner(labels: Indices, training: Indices, seed: int) -> Iterator[Indices]:
    return (training[part] for _, part in _folds(labels[training], INNER, seed))


def _folds(labels: Indices, number: int, seed: int) -> Iterator[tuple[Indices, Indices]]:
    folds: Iterator[tuple[Indices, Indices]] = StratifiedKFold(number, shuffle=True, random_state=seed).split(
        labels, labels
    )
    return folds


@dataclass(frozen=True)
class Task:
    """One training and its predictions."""

    member: Candidate
    training: Indices
    asked: Indices

    def key(self, bags: Bags) -> str:
        """Changes with anything that the predictions depend on, the code excepted."""
        facts = {
            "member": self.member.name,
            "facts": self.member.facts,
            "data": bags.facts,
            "training": [bags.patient_ids[index] for index in self.training],
            "asked": [bags.patient_ids[index] for index in self.asked],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def inner_tasks(member: Candidate, outer: Outer) -> list[Task]:
    """One an inner fold; together they ask for every outer training patient once."""
    return [Task(member, np.setdiff1d(outer.training, part), part) for part in outer.inner]


def outer_task(member: Candidate, outer: Outer) -> Task:
    """The member as the outer fold's held-out patients meet it."""
    return Task(member, outer.training, outer.held_out)


def all_tasks(models: Sequence[Model], outers: Sequence[Outer]) -> list[Task]:
    """Everything to be trained, the longest members of the first repeat among it."""
    return [
        task
        for outer in outers
        for model in models
        if model.repeated or outer.repeat == 0
        for member in members_of(model)
        for task in [*inner_tasks(member, outer), outer_task(member, outer)]
    ]


class Predictor:
    """Trains tasks or takes what an earlier call kept. Several processes may share the folder."""

    def __init__(self, bags: Bags, folder: Path) -> None:
        self._bags, self._folder = bags, folder
        for name in ("predictions", "locks"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def is_done(self, task: Task) -> bool:
        """Whether its predictions are there."""
        return self._path(task).exists()

    def predict(self, task: Task) -> Floats:
        """The task's probabilities, in the order of its asked patients: (asked,)."""
        self.train(task, wait=True)
        # Numbers as text first: NumPy reads back exactly what was written.
        table = pd.read_csv(self._path(task), dtype=str, keep_default_na=False).set_index("patient_id")
        return table[task.member.column].loc[self._asked(task)].to_numpy(str).astype(np.float64)

    def train(self, task: Task, *, wait: bool) -> bool:
        """Have the task's predictions made if they are not there; False if another process is at it and none waits."""
        path = self._path(task)
        if path.exists():
            return True
        try:
            with held(self._folder / "locks" / path.stem, wait=wait):
                if not path.exists():
                    self._make(task, path)
        except BlockingIOError:
            return False
        return True

    def _make(self, task: Task, path: Path) -> None:
        checkpoint = path.with_suffix(".safetensors")
        predicted = task.member.predict(task.training, task.asked, checkpoint)
        columns = predicted if isinstance(predicted, Mapping) else {PROBABILITY: predicted}
        write_table(path, pd.DataFrame({"patient_id": self._asked(task), **columns}))
        for left in (checkpoint, progress_path(checkpoint)):  # its predictions are all that is needed of it
            left.unlink(missing_ok=True)

    def _asked(self, task: Task) -> list[str]:
        return [self._bags.patient_ids[index] for index in task.asked]

    def _path(self, task: Task) -> Path:
        name = task.member.name.replace(" ", "-")
        return self._folder / "predictions" / f"{name}-{task.key(self._bags)}.csv"
