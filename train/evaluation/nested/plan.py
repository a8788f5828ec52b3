"""Which patients each model is trained on and predicts: outer folds, and inner folds in each outer training set.

Predictions are cached by content (RUN/nested/predictions/MEMBER-KEY.csv): the same member, hyperparameters, data and
patients are never trained twice, an interrupted call can be resumed, and several processes can share the work.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from infer.errors import UsageError
from train.core.arrays import Floats, Indices
from train.core.checkpoint import progress_path
from train.core.files import locked, write_table
from train.data.bags import Bags
from train.data.centres import CLASSES, LEAST, centre_groups, has_figures, strata
from train.data.whose_pictures import COLUMNS, OWN
from train.members.candidate import Candidate, Model, members_of

LOG = logging.getLogger("lympho")

OUTER, INNER = 5, 3  # folds

Centres = Sequence[str] | None  # (P,) the hospital of each patient


@dataclass(frozen=True)
class Outer:
    """An outer fold. All patients are given as sorted indices."""

    repeat: int
    number: int
    training: Indices  # for fitting and model selection
    held_out: Indices  # for the reported metrics
    inner: tuple[Indices, ...]  # held-out patients of each inner fold; together they are `training`


def outer_folds(labels: Indices, seed: int, repeats: int, centres: Centres = None) -> list[Outer]:
    """Outer folds of all repeats, stratified by label, and by centre if given; repeat r uses random seed `seed` + r."""
    return [
        Outer(repeat, number, training, held_out, tuple(inner_folds(labels, training, seed + repeat, centres)))
        for repeat in range(repeats)
        for number, (training, held_out) in enumerate(_folds(strata(labels, centres, OUTER), OUTER, seed + repeat))
    ]


def inner_folds(labels: Indices, training: Indices, seed: int, centres: Centres = None) -> Iterator[Indices]:
    """The held-out patients of each inner fold among these training patients, stratified as the outer folds."""
    known = centres and [centres[index] for index in training]
    return (training[part] for _, part in _folds(strata(labels[training], known, INNER), INNER, seed))


def centre_folds(labels: Indices, seed: int, repeats: int, centres: Centres) -> list[Outer]:
    """Each centre held out in turn, in the order of their names; repeats differ in their inner folds alone.

    Raises:
        UsageError: there are no centres, only one, or without one of them fewer than 5 patients of a class are left.
    """
    option = "--leave-one-centre-out"
    groups = centre_groups(centres)
    if not groups:
        raise UsageError(f"{option}: the table has no column CENTRE, or it is empty. Name each patient's centre in it")
    if len(groups) == 1:
        raise UsageError(f"{option}: all patients are of one centre ({next(iter(groups))}). It needs two or more")
    for name, chosen in groups.items():
        if not has_figures(labels, ~chosen):
            left = " and ".join(f"{(labels[~chosen] == label).sum()} {title}" for label, title in CLASSES.items())
            raise UsageError(
                f"{option}: without centre {name} only {left} patients are left to train on, and {LEAST} of each class "
                "are needed. Evaluate without this option"
            )
    return [
        Outer(repeat, number, rest, np.flatnonzero(chosen), tuple(inner_folds(labels, rest, seed + repeat, centres)))
        for repeat in range(repeats)
        for number, chosen in enumerate(groups.values())
        for rest in [np.flatnonzero(~chosen)]
    ]


def _folds(stratified_by: Indices, number: int, seed: int) -> Iterator[tuple[Indices, Indices]]:
    folds: Iterator[tuple[Indices, Indices]] = StratifiedKFold(number, shuffle=True, random_state=seed).split(
        stratified_by, stratified_by
    )
    return folds


@dataclass(frozen=True)
class Task:
    """A training and the predictions to be made with it."""

    member: Candidate
    training: Indices
    asked: Indices

    def key(self, bags: Bags) -> str:
        """Hash of everything the predictions depend on, except the code."""
        facts = {
            "member": self.member.name,
            "facts": self.member.facts,
            "data": bags.facts,
            "training": [bags.patient_ids[index] for index in self.training],
            "asked": [bags.patient_ids[index] for index in self.asked],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def inner_tasks(member: Candidate, outer: Outer) -> list[Task]:
    """One task per inner fold; together they predict every outer training patient once."""
    return [Task(member, np.setdiff1d(outer.training, part), part) for part in outer.inner]


def outer_task(member: Candidate, outer: Outer) -> Task:
    """The task that trains on the outer training patients and predicts the outer held-out patients."""
    return Task(member, outer.training, outer.held_out)


def all_tasks(models: Sequence[Model], outers: Sequence[Outer]) -> list[Task]:
    """All trainings of the protocol; slow members are included only in the first repeat."""
    return [
        task
        for outer in outers
        for model in models
        if model.repeated or outer.repeat == 0
        for member in members_of(model)
        for task in [*inner_tasks(member, outer), outer_task(member, outer)]
    ]


class Predictor:
    """Runs tasks, or returns cached predictions of earlier calls. Several processes may share the folder."""

    def __init__(self, bags: Bags, folder: Path) -> None:
        self._bags, self._folder = bags, folder
        for name in ("predictions", "locks"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def is_done(self, task: Task) -> bool:
        """Whether the predictions of a task are cached."""
        return self._path(task).exists()

    def predict(self, task: Task) -> Floats:
        """The task's probabilities, in the order of the patients to predict: (len(task.asked),)."""
        return self._columns(task)[task.member.column]

    def predict_blind(self, task: Task) -> dict[str, Floats]:
        """The same by swapped and by blank pictures (train/data/whose_pictures.py), if the member sees pictures."""
        columns = self._columns(task) if task.member.column == OWN else {}
        return {name: columns[name] for name in COLUMNS if name != OWN and name in columns}

    def _columns(self, task: Task) -> dict[str, Floats]:
        self.train(task, wait=True)
        # Read as text and converted by NumPy, which restores exactly the numbers that were written.
        table = pd.read_csv(self._path(task), dtype=str, keep_default_na=False).set_index("patient_id")
        asked = table.loc[self._asked(task)]
        return {str(name): asked[name].to_numpy(str).astype(np.float64) for name in table.columns}

    def train(self, task: Task, *, wait: bool) -> bool:
        """Compute the task's predictions unless they are cached.

        Returns:
            False if another process is computing them and `wait` is false, else True.
        """
        path = self._path(task)
        if path.exists():
            return True
        try:
            with locked(self._folder / "locks" / path.stem, wait=wait):
                if not path.exists():
                    self._make(task, path)
        except BlockingIOError:
            return False
        return True

    def _make(self, task: Task, path: Path) -> None:
        checkpoint = path.with_suffix(".safetensors")
        predicted = task.member.predict(task.training, task.asked, checkpoint)
        columns = predicted if isinstance(predicted, Mapping) else {OWN: predicted}
        write_table(path, pd.DataFrame({"patient_id": self._asked(task), **columns}))
        for left in (checkpoint, progress_path(checkpoint)):  # only the predictions are needed
            left.unlink(missing_ok=True)

    def _asked(self, task: Task) -> list[str]:
        return [self._bags.patient_ids[index] for index in task.asked]

    def _path(self, task: Task) -> Path:
        name = task.member.name.replace(" ", "-")
        return self._folder / "predictions" / f"{name}-{task.key(self._bags)}.csv"
