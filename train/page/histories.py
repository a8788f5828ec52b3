"""Learning curves of the run's networks, and their plot."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from train.figures.curves import COLOURS
from train.members import registry

PANELS = {"loss": "loss", "balanced_accuracy": "balanced accuracy"}
NOTES = {"moe": "Of the first of its mixtures, before its clinical expert and its gate are fitted once more."}
STYLES = {"training": "-", "validation": "--"}


def read_histories(run: Path) -> dict[str, dict[str, pd.DataFrame]]:
    """Member -> training (fold-0 to fold-4, full) -> one row per epoch, of what was recorded."""
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for member in registry.MEMBERS:
        paths = sorted((run / member.folder).glob("*.history.csv"))
        if paths:
            found[member.name] = {path.name.removesuffix(".history.csv"): pd.read_csv(path) for path in paths}
    return found


def has_validation(histories: dict[str, pd.DataFrame]) -> bool:
    """Whether the held-out patients were scored after each epoch in any of the trainings."""
    return any("validation_loss" in history for history in histories.values())


def draw(histories: dict[str, pd.DataFrame]) -> Figure:
    """Each training a thin line, the mean of the folds a thick one; the training loss alone where no more is known."""
    folds = {name: history for name, history in histories.items() if name != "full"}
    if has_validation(histories):
        watched = [history for history in folds.values() if "validation_loss" in history]
        panels = {
            label: {part: [of[f"{part}_{name}"] for of in watched] for part in COLOURS}
            for name, label in PANELS.items()
        }
    else:
        panels = {"loss": {"training": [history["loss"] for history in histories.values()]}}
    figure = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (label, parts) in zip(axes, panels.items(), strict=True):
        for part, curves in parts.items():
            for curve in curves:
                axis.plot(curve.index + 1, curve, color=COLOURS[part], linestyle=STYLES[part], alpha=0.3, linewidth=0.8)
            mean = pd.concat(curves, axis=1).mean(axis=1)
            axis.plot(mean.index + 1, mean, color=COLOURS[part], linestyle=STYLES[part], linewidth=2, label=part)
        axis.set(xlabel="epoch", ylabel=label)
        if label == PANELS["balanced_accuracy"]:
            axis.set_ylim(0, 1.03)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    return figure
