"""Compares sizes of SCAN's backbone by the quality of the classes and by speed: it dominates the cost of scoring.

Every size is trained through all of SCAN's stages with a quarter of the recipe's epochs, and naive Bayes is
cross-validated on its classes. Only naive Bayes uses labels; a size selected by its results was selected on the same
patients as later results are reported on.
"""

import logging
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor

from infer.errors import UsageError
from train.core.arrays import Classes
from train.core.files import write_table
from train.core.fitting import FitRecipe
from train.data.bags import CROP_SIZE, Bags
from train.members.backbones import BACKBONES
from train.members.naive_bayes import read_cell_classes, train_naive_bayes
from train.members.recipes import BayesRecipe, ScanRecipe
from train.members.scan.measures import Collapse
from train.members.scan.network import ScanNetwork, scan_dimensions
from train.members.scan.stages import train_scan

LOG = logging.getLogger("lympho")

SHARE = 0.25  # fraction of the recipe's epochs, in every stage
SPEED_BATCH = 32  # pictures, the default in scoring
SPEED_ROUNDS = 5


def compare_sizes(
    bags: Bags,
    folds: npt.NDArray[np.int64],
    run: Path,
    recipe: ScanRecipe,
    bayes: BayesRecipe,
    seed: int,
    device: torch.device,
    *,
    reference: Classes | None = None,
    names: tuple[str, ...] = tuple(BACKBONES),
) -> pd.DataFrame:
    """Train what is missing in RUN/sizes/NAME and return the table, one row per size; also in RUN/sizes/sizes.csv.

    Columns: widths; input, pixels a side; parameters; pictures_per_second in evaluation mode, with all sizes measured
    in turn so that their ratios are valid on a busy machine; the last row of the size's own stage table (agreement with
    reference and patients, neighbours from the same patient); out-of-fold balanced accuracy and AUC of naive Bayes, and
    its AUC without sex, count and age; collapsed, the reason if a size has no classes.

    Args:
        bags: all patients.
        folds: (P,) fold in which each patient is held out.
        run: the run folder.
        recipe: hyperparameters of SCAN, before the epochs are reduced.
        bayes: hyperparameters of naive Bayes.
        seed: random seed.
        device: device to train on.
        reference: (N,) reference classes from another source.
        names: names in BACKBONES.

    Raises:
        UsageError: a name is not in BACKBONES.
    """
    unknown = [name for name in names if name not in BACKBONES]
    if unknown:
        raise UsageError(f"unknown size {', '.join(unknown)}. Choose from {', '.join(BACKBONES)}")
    rows = []
    for name in names:
        folder = run / "sizes" / name
        sized = replace(shortened(recipe), backbone=BACKBONES[name])
        try:
            train_scan(bags, folder, sized, seed, device, reference=reference)
            rows.append(_found(bags, folds, folder, bayes) | {"collapsed": ""})
        except Collapse as error:
            LOG.warning("scan, %s: %s", name, error)
            rows.append({"collapsed": str(error)})
    networks = {name: ScanNetwork(scan_dimensions(BACKBONES[name], recipe.clusters, 1)) for name in names}
    speeds = pictures_per_second(networks, bags.crops[:SPEED_BATCH].to(device), device)
    table = pd.DataFrame(rows)
    table.insert(0, "size", names)
    table.insert(1, "widths", [" ".join(map(str, BACKBONES[name].widths)) for name in names])
    table.insert(2, "input", [CROP_SIZE // BACKBONES[name].shrink for name in names])
    table.insert(3, "parameters", [sum(value.numel() for value in networks[name].parameters()) for name in names])
    table.insert(4, "pictures_per_second", [speeds[name] for name in names])
    write_table(run / "sizes" / "sizes.csv", table)
    return table


def shortened(recipe: ScanRecipe) -> ScanRecipe:
    """The recipe with a quarter of its epochs, but at least one, in every stage."""

    def short(fit: FitRecipe) -> FitRecipe:
        return replace(fit, epochs=max(1, round(SHARE * fit.epochs)))

    return replace(
        recipe,
        pretext=short(recipe.pretext),
        clustering=short(recipe.clustering),
        self_labelling=short(recipe.self_labelling),
    )


def pictures_per_second(
    networks: dict[str, ScanNetwork], images: Tensor, device: torch.device, rounds: int = SPEED_ROUNDS
) -> dict[str, float]:
    """Speed of each network in evaluation mode: the median over rounds in which all networks run in turn.

    Args:
        networks: the networks by name.
        images: (N, 112, 112, 3) uint8, one batch.
        device: device to run on.
        rounds: number of measured rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for name, network in networks.items():
                network.eval().to(device)
                start = time.perf_counter()
                network(images)[0].sum().item()  # .item() waits for a GPU to finish
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
    return {name: round(len(images) / statistics.median(taken), 1) for name, taken in seconds.items()}


def _found(bags: Bags, folds: npt.NDArray[np.int64], folder: Path, bayes: BayesRecipe) -> dict[str, object]:
    """Quality of a size's classes, and naive Bayes' results on them, from its finished folder."""
    classes = read_cell_classes(folder / "scan" / "classes.csv", bags)
    table = train_naive_bayes(bags, classes, folds, folder / "naive_bayes", bayes)
    stages = pd.read_csv(folder / "scan" / "stages.csv")
    final = {str(name): value for name, value in stages.iloc[-1].drop("stage").items()}
    label = table["label"]
    return final | {
        "balanced_accuracy": float(balanced_accuracy_score(label, table["probability"] >= 0.5)),
        "auc": float(roc_auc_score(label, table["probability"])),
        "auc_pictures_only": float(roc_auc_score(label, table["pictures_only"])),
    }
