"""What a run folder holds, read for the page. Nothing is trained; a member that is not there is left out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from infer.bundle.manifest import Ensemble
from infer.errors import UsageError
from infer.members import registry as scored
from train.core.arrays import Floats, Labels
from train.core.provenance import FILE as CALLS
from train.core.threads import on_one_thread
from train.data.bags import Bags, load_crops
from train.ensemble.fit import clinical_naive_bayes
from train.members import registry
from train.members.absent import is_absent, notes_of
from train.members.linear import plain_logistic
from train.members.training import OUT_OF_FOLD

Metrics = Mapping[str, Mapping[str, float]]
SHARED = ("all", "crops", "ensemble", *(member.command for member in registry.MEMBERS))  # they take the same options


@dataclass(frozen=True)
class Member:
    """A member's out-of-fold predictions."""

    name: str
    title: str
    probability: Floats  # (P,)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run."""

    run: Path
    bags: Bags
    folds: Labels  # (P,)
    probability: Floats  # (P,) the ensemble's, cross-fitted
    members: tuple[Member, ...]
    ensemble: Ensemble
    metrics: Metrics  # RUN/ensemble/metrics.json
    clinical: Mapping[str, Floats]  # ways to use sex, age and count alone -> (P,) out of fold, on the same folds
    rejected: int  # pictures
    options: tuple[str, ...] | None  # of the training's command line, with both folders; None if it is not known
    changed: tuple[str, ...]  # files that the ensemble was fitted on and that are others by now
    notes: tuple[str, ...]  # on members that are left out, or in which something took another's place
    nested: Mapping[str, float] | None  # value, low and high of the ensemble's AUC, if that evaluation has been done


def read_run(run: Path) -> FinishedRun:
    """Read a run folder.

    Raises:
        UsageError: the ensemble has not been fitted, or on other patients.
    """
    folder = run / "ensemble"
    for name in (OUT_OF_FOLD, "metrics.json", "ensemble.json"):
        if not (folder / name).exists():
            raise UsageError(f"{folder / name}: is missing. Run `python -m train all` first")
    bags = load_crops(run)
    table = _predictions(folder / OUT_OF_FOLD, bags)
    folds = table["fold"].to_numpy(np.int64)
    return FinishedRun(
        run,
        bags,
        folds,
        table["probability"].to_numpy(np.float64),
        _members(run, bags),
        msgspec.json.decode((folder / "ensemble.json").read_bytes(), type=Ensemble),
        json.loads((folder / "metrics.json").read_text()),
        {
            "naive Bayes": clinical_naive_bayes(bags, folds),
            "logistic regression": _logistic(bags, folds),
        },
        len(pd.read_csv(run / "crops" / "rejected.csv")),
        _options(run / CALLS),
        _changed(run),
        tuple(notes_of(run, registry.MEMBERS)),
        _nested(run / "nested" / "figures.json"),
    )


def title_of(name: str) -> str:
    """A member's name for people."""
    return {kind.name: kind.title for kind in scored.MEMBERS}.get(name, name)


def _predictions(path: Path, bags: Bags) -> pd.DataFrame:
    table = pd.read_csv(path, dtype={"patient_id": str}, keep_default_na=False)
    if table["patient_id"].tolist() != bags.patient_ids:
        raise UsageError(f"{path}: lists other patients than the crops. Run `python -m train all` again")
    return table


def _members(run: Path, bags: Bags) -> tuple[Member, ...]:
    found = []
    for member in registry.MEMBERS:
        path = run / member.folder / OUT_OF_FOLD
        if path.exists() and not is_absent(run, member):
            probability = _predictions(path, bags)["probability"].to_numpy(np.float64)
            found.append(Member(member.name, title_of(member.name), probability))
    return tuple(found)


@on_one_thread
def _logistic(bags: Bags, folds: Labels) -> Floats:
    """Out-of-fold probabilities of logistic regression on sex, log count and age: (P,)."""
    sex, count, age = bags.clinical.astype(np.float64).T
    features = np.stack([sex, np.log(count), age], axis=1)
    result = np.empty(len(bags))
    for fold in np.unique(folds):
        asked = folds == fold
        model: Pipeline | LogisticRegression = plain_logistic().fit(features[~asked], bags.labels[~asked])
        result[asked] = model.predict_proba(features[asked])[:, 1]
    return result


def _options(path: Path) -> tuple[str, ...] | None:
    """Of the last training's call: patients, run folder and options, as they were given."""
    for text in reversed(path.read_text().splitlines() if path.exists() else []):
        try:
            command: list[Any] = json.loads(text)["command"]
        except (ValueError, KeyError):  # a line that a full disk cut
            continue
        if command and command[0] in SHARED:
            return tuple(map(str, command[1:]))
    return None


def _nested(path: Path) -> Mapping[str, float] | None:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["performance"] if path.exists() else []
    wanted = {"model": "ensemble", "group": "all", "figure": "auc"}
    for row in rows:
        if wanted.items() <= row.items():
            return {name: float(row[name]) for name in ("value", "low", "high")}
    return None


def _changed(run: Path) -> tuple[str, ...]:
    path = run / "ensemble" / "inputs.json"
    fitted: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return tuple(
        name
        for name, digest in fitted.items()
        if not (run / name).exists() or hashlib.sha256((run / name).read_bytes()).hexdigest() != digest
    )
