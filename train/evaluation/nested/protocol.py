"""Runs the nested protocol: trains what is missing, stacks inside each outer fold, collects held-out predictions."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from infer.errors import UsageError
from train.core.arrays import Floats, Indices
from train.core.performance import Predictions
from train.data.bags import Bags
from train.evaluation.nested.leads import clinical_features
from train.evaluation.nested.plan import Outer, Predictor, all_tasks, inner_tasks, outer_task
from train.evaluation.nested.stacking import (
    PERCENTS,
    Judged,
    Scored,
    Stack,
    choose_ensemble,
    score_ensemble,
    score_gated,
    score_member,
)
from train.members.candidate import Model, members_of

LOG = logging.getLogger("lympho")

CHOSEN = "ensemble chosen inside"  # one of several ensembles, selected in each outer fold by its inner folds


@dataclass
class Nested:
    """Held-out predictions for all patients by all models, in the order of the bags."""

    predictions: dict[str, list[Predictions]] = field(default_factory=dict)  # by model, one per repeat
    decisions: dict[str, dict[str, npt.NDArray[np.object_]]] = field(default_factory=dict)  # ensemble, point -> (P,)
    chosen: list[dict[str, object]] = field(default_factory=list)  # model, repeat, fold and what was selected
    # Predictions by swapped and by blank pictures: model, column (train/data/whose_pictures.py) -> repeats
    blind: dict[str, dict[str, list[Predictions]]] = field(default_factory=dict)


def train_part(predictor: Predictor, members: Sequence[Model], outers: Sequence[Outer], part: int, parts: int) -> None:
    """Train one of several shares of the tasks, so that several calls can run in parallel."""
    mine = [task for task in all_tasks(members, outers)[part - 1 :: parts] if not predictor.is_done(task)]
    for number, task in enumerate(mine):
        LOG.info("nested: %s, training %d of %d of this share", task.member, number + 1, len(mine))
        if not predictor.train(task, wait=False):
            LOG.info("nested: skipped, another process is training it")


def gather(
    bags: Bags,
    predictor: Predictor,
    members: Sequence[Model],
    outers: Sequence[Outer],
    ensembles: Mapping[str, Stack],
    gates: Mapping[str, tuple[str, str]] | None = None,
) -> Nested:
    """Held-out predictions of every model; missing ones are trained.

    Args:
        bags: all patients.
        predictor: runs the tasks.
        members: the models to evaluate.
        outers: the outer folds of all repeats.
        ensembles: name -> ensemble.
        gates: name -> the two members that the gate weights per patient.

    Raises:
        UsageError: an ensemble or gate refers to an unknown member.
    """
    gates = gates or {}
    known = {str(member) for member in members}
    for name, of in ({name: stack.members for name, stack in ensembles.items()} | dict(gates)).items():
        if not set(of) <= known:
            raise UsageError(f"{name}: has no member {', '.join(sorted(set(of) - known))}")
    result = Nested()
    for repeat in sorted({outer.repeat for outer in outers}):
        folds = [outer for outer in outers if outer.repeat == repeat]
        present = [member for member in members if member.repeated or repeat == 0]
        scored: dict[str, list[tuple[Outer, Scored]]] = {}
        for outer in folds:
            for name, one in _score_fold(bags, predictor, present, outer, ensembles, gates).items():
                scored.setdefault(name, []).append((outer, one))
                result.chosen.append({"model": name, "repeat": repeat, "fold": outer.number, **one.chosen})
        for name, parts in scored.items():
            result.predictions.setdefault(name, []).append(_joined(bags, parts))
            for pictures in parts[0][1].blind:
                others = [(outer, one.blind[pictures]) for outer, one in parts]
                result.blind.setdefault(name, {}).setdefault(pictures, []).append(_joined_probabilities(bags, others))
            for point in parts[0][1].decisions if repeat == 0 else ():
                decided = np.empty(len(bags), dtype=object)
                for outer, one in parts:
                    decided[outer.held_out] = one.decisions[point]
                result.decisions.setdefault(name, {})[point] = decided
    return result


def _score_fold(
    bags: Bags,
    predictor: Predictor,
    members: Sequence[Model],
    outer: Outer,
    ensembles: Mapping[str, Stack],
    gates: Mapping[str, tuple[str, str]],
) -> dict[str, Scored]:
    labels, folds = bags.labels[outer.training], _inner_numbers(outer)
    inner = {str(member): _inner_predictions(predictor, member, outer) for member in members}  # (T,) each
    held_out = {str(member): _held_out_predictions(predictor, member, outer) for member in members}  # (H,) each
    blind = {str(member): _blind_predictions(predictor, member, outer) for member in members}
    clinical_only = {str(member) for member in members if all(one.clinical_only for one in members_of(member))}

    def stacked(of: Sequence[str]) -> tuple[Floats, Floats, dict[str, Floats]]:
        """Several members' predictions: inner (M, T), held out (M, H), and by other pictures (M, H) each.

        The last is empty if a member sees pictures but was not judged by others: it would still see the right ones.
        """
        found = {}
        if all(blind[name] or name in clinical_only for name in of):
            columns = {column: None for name in of for column in blind[name]}
            found = {column: np.stack([blind[name].get(column, held_out[name]) for name in of]) for column in columns}
        return np.stack([inner[name] for name in of]), np.stack([held_out[name] for name in of]), found

    scored = {name: score_member(inner[name], labels, held_out[name], blind[name]) for name in inner}
    mixed = {}
    for name, stack in ensembles.items():
        if all(member in inner for member in stack.members):
            values, asked, others = stacked(stack.members)
            mixed[name] = score_ensemble(stack, values, labels, folds, asked, others)
    free = {name: one for name, one in mixed.items() if len(ensembles[name].pulls) > 1}
    chosen = {CHOSEN: choose_ensemble(free)} if len(free) > 1 else {}
    clinical = clinical_features(bags)
    gated = {}
    for name, of in gates.items():
        if all(member in inner for member in of):
            values, asked, others = stacked(of)
            gated[name] = score_gated(
                values, clinical[outer.training], labels, folds, asked, clinical[outer.held_out], others
            )
    return scored | mixed | chosen | gated


def _inner_predictions(predictor: Predictor, model: Model, outer: Outer) -> Floats:
    """Predictions for the outer training patients, each from the inner fold that held the patient out: (T,)."""
    result = np.full((len(members_of(model)), len(outer.training)), np.nan)
    for row, member in zip(result, members_of(model), strict=True):
        for task in inner_tasks(member, outer):
            row[np.searchsorted(outer.training, task.asked)] = predictor.predict(task)
    return np.asarray(result.mean(axis=0))


def _held_out_predictions(predictor: Predictor, model: Model, outer: Outer) -> Floats:
    """Predictions for the outer held-out patients: (H,)."""
    found = [predictor.predict(outer_task(member, outer)) for member in members_of(model)]
    return np.asarray(np.mean(found, axis=0))


def _blind_predictions(predictor: Predictor, model: Model, outer: Outer) -> dict[str, Floats]:
    """The same by swapped and by blank pictures: (H,) each; empty if the model does not see pictures."""
    found = [predictor.predict_blind(outer_task(member, outer)) for member in members_of(model)]
    return {column: np.asarray(np.mean([one[column] for one in found], axis=0)) for column in found[0]}


def _inner_numbers(outer: Outer) -> Indices:
    """The inner fold of each outer training patient: (T,)."""
    numbers = np.empty(len(outer.training), dtype=np.int64)
    for number, part in enumerate(outer.inner):
        numbers[np.searchsorted(outer.training, part)] = number
    return numbers


def _joined_probabilities(bags: Bags, parts: Sequence[tuple[Outer, Judged]]) -> Predictions:
    probability, called = np.full(len(bags), np.nan), np.zeros(len(bags), dtype=bool)
    for outer, one in parts:
        probability[outer.held_out], called[outer.held_out] = one.probability, one.called
    return Predictions(bags.labels, probability, called)


def _joined(bags: Bags, parts: Sequence[tuple[Outer, Scored]]) -> Predictions:
    """The outer folds of one repeat joined, with every patient once: (P,)."""
    joined = _joined_probabilities(bags, parts)
    sent_on = {percent: np.zeros(len(bags), dtype=bool) for percent in PERCENTS}
    for outer, one in parts:
        for percent, sent in one.sent_on.items():
            sent_on[percent][outer.held_out] = sent
    return replace(joined, sent_on=sent_on)
