"""The report's own protocol, so that our results can be compared with it. Optimistic, and labelled so wherever printed.

A stratified 80/20 split and 5 folds, seed 42, patients sorted by ID as strings. The epoch with the best balanced
accuracy on the validation patients is kept, and its metrics on the same patients are reported. Naive Bayes uses the
order of the annotation file, and quantiles and scaling from all patients (train/members/naive_bayes.py).
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedKFold, train_test_split

from infer.errors import UsageError
from train.core.arrays import Indices
from train.core.checkpoint import save_network
from train.core.curves import Curves
from train.core.files import write_text
from train.core.fitting import Job
from train.data.bags import Bags
from train.data.folds import FOLDS
from train.members import baseline, naive_bayes
from train.members import mixture as moe
from train.members.mixture_network import MixtureOfExperts
from train.members.recipes import Recipe

LOG = logging.getLogger("lympho")

SEED = naive_bayes.REPORT_SEED
PICKED = "validation_balanced_accuracy"
LABEL = "report protocol: the epoch is picked on the patients whose figures these are, so they are optimistic"
# Table 2 of the report (163 patients), and the mean over 5 folds if the report states one (section 3.3).
STATED: dict[str, dict[str, float | None]] = {
    "baseline": {"training": 0.89923, "validation": 0.73978, "folds_mean": None},
    "scan": {"training": 0.89027, "validation": 0.89130, "folds_mean": None},
    "moe": {"training": 0.883333, "validation": 0.93478, "folds_mean": 0.94392},
}


@dataclass(frozen=True)
class Division:
    """Training patients and held-out patients, both as indices."""

    name: str  # split or fold-0 to fold-4
    training: Indices
    validation: Indices


Trainer = Callable[[Bags, Division, Path, Recipe, int, torch.device], None]


def divisions(bags: Bags) -> list[Division]:
    """The report's split and folds for its deep models."""
    by_id = np.array(sorted(range(len(bags)), key=lambda index: bags.patient_ids[index]))
    labels = bags.labels[by_id]
    training, validation = train_test_split(by_id, test_size=0.2, random_state=SEED, stratify=labels)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(by_id, labels)
    return [
        Division("split", training, validation),
        *[Division(f"fold-{number}", by_id[some], by_id[rest]) for number, (some, rest) in enumerate(folds)],
    ]


def evaluate(
    bags: Bags, run: Path, recipe: Recipe, seed: int, device: torch.device, models: tuple[str, ...]
) -> dict[str, dict[str, object]]:
    """Train what is missing in RUN/report and return each model's balanced accuracies.

    The results are also written to RUN/report/metrics.json.

    Args:
        bags: all patients.
        run: the run folder.
        recipe: hyperparameters.
        seed: random seed.
        device: device to train on.
        models: some of baseline, scan and moe.

    Raises:
        UsageError: scan is requested but has not been trained.
    """
    folder = run / "report"
    folder.mkdir(exist_ok=True)
    figures = {model: _figures(model, bags, run, recipe, seed, device) for model in models}
    path = folder / "metrics.json"
    known = json.loads(path.read_text())["models"] if path.exists() else {}
    facts = {"protocol": LABEL, "recipe": recipe.name, "seed": seed, "patients": len(bags), "models": known | figures}
    facts["moe_late_fit"] = "not made: the epoch is picked on the network as it was trained"
    write_text(path, json.dumps(facts | {"stated_in_report": STATED}, indent=1))
    return figures


def _figures(model: str, bags: Bags, run: Path, recipe: Recipe, seed: int, device: torch.device) -> dict[str, object]:
    if model == "scan":
        path = run / "scan" / "classes.csv"
        if not path.exists():
            raise UsageError(f"{run}: has no cell classes. Run `python -m train scan` first")
        classes = naive_bayes.read_cell_classes(path, bags)
        base = naive_bayes.patient_features(bags, classes)
        bayes = naive_bayes.evaluate_naive_bayes(base, bags.labels, "report", recipe.bayes)
        return _summary(
            bayes.training_balanced_accuracy, bayes.validation_balanced_accuracy, bayes.fold_balanced_accuracy
        )
    folder = run / "report" / model
    folder.mkdir(exist_ok=True)
    best = {}
    for division in divisions(bags):
        path = folder / f"{division.name}.safetensors"
        if not path.exists():
            TRAINERS[model](bags, division, path, recipe, seed, device)
        history = pd.read_csv(path.with_suffix(".history.csv"))
        best[division.name] = history.iloc[int(history[PICKED].to_numpy().argmax())]
    folds = [float(best[f"fold-{number}"][PICKED]) for number in range(FOLDS)]
    epochs = {name: int(row["epoch"]) for name, row in best.items()}
    split = best["split"]
    return _summary(float(split["training_balanced_accuracy"]), float(split[PICKED]), folds) | {"best_epoch": epochs}


def _summary(training: float, validation: float, folds: list[float]) -> dict[str, object]:
    return {
        "training": training,
        "validation": validation,
        "folds": folds,
        "folds_mean": float(np.mean(folds)),
        "folds_spread": float(np.std(folds)),
    }


def _train_baseline(
    bags: Bags, division: Division, path: Path, recipe: Recipe, seed: int, device: torch.device
) -> None:
    curves: Curves[baseline.Baseline] = Curves(
        bags.labels, division.validation, lambda network, of: baseline.score(network, bags, of, device)
    )
    job = Job(f"report baseline {division.name}", path, seed, best=PICKED)
    network = baseline.train_network(bags, division.training, recipe.baseline, job, device, curves)
    save_network(path, network, network.dimensions)


def _train_moe(bags: Bags, division: Division, path: Path, recipe: Recipe, seed: int, device: torch.device) -> None:
    curves: Curves[MixtureOfExperts] = Curves(
        bags.labels, division.validation, lambda network, of: moe.score(network, bags, of, device)["probability"]
    )
    job = Job(f"report moe {division.name}", path, seed, best=PICKED)
    network = moe.train_network(bags, division.training, recipe.moe, job, device, curves).cpu()
    save_network(path, network, network.dimensions)


TRAINERS: dict[str, Trainer] = {"baseline": _train_baseline, "moe": _train_moe}
