"""How large SCAN's backbone has to be: what each size finds against how quick it is, because it dominates scoring cost.

Every size goes through SCAN's stages with a quarter of the recipe's epochs, and naive Bayes through the folds. Labels
enter the table by naive Bayes alone; a size chosen by it was chosen on the patients that later figures are about.
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
from train.core.files import write_table
from train.core.fitting import FitRecipe
from train.data.bags import CROP_SIZE, Bags
from train.members.backbones import BACKBONES
from train.members.naive_bayes import read_cell_classes, train_naive_bayes
from train.members.recipes import BayesRecipe, ScanRecipe
from train.members.scan.measures import Classes, Collapse
from train.members.scan.network import ScanNetwork, scan_dimensions
from train.members.scan.stages import train_scan

LOG = logging.getLogger("lympho")

SHARE = 0.25  # of the recipe's epochs, in every stage
SPEED_BATCH = 32  # pictures; scoring's default
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
    """Train what is missing in RUN/sizes/NAME and return the table, kept in RUN/sizes/sizes.csv: a row a size.

    Columns: widths; input, pixels a side; parameters; pictures_per_second of a network of that size in evaluation mode,
    all sizes measured in turn, so that their ratios hold on a busy machine; the last row of the size's own stage table
    (agreement with reference and patients, neighbours of the own patient); out-of-fold balanced accuracy and AUC of
    naive Bayes, and its AUC without sex, count and age; collapsed, why a size has no classes.

    Args:
        reference: (N,) classes from elsewhere to agree with.
        names: of BACKBONES.

    Raises:
        UsageError: a name is not in BACKBONES.
    """
    unknown = [name for name in names if name not in BACKBONES]
    if unknown:
        raise UsageError(f"no size is called {', '.join(unknown)}. Choose of {', '.join(BACKBONES)}")
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
    """The recipe with a quarter of its epochs, one at least, in every stage."""

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
    """Of each network in evaluation mode: the median of some rounds, in each of which every network has its turn.

    Args:
        images: (N, 112, 112, 3) uint8, one batch.
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
    """What a size's classes are and are good for, from its finished folder."""
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
