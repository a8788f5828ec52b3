"""Loss, balanced accuracy and true-negative and true-positive rates by epoch (report, figures 7 to 10)."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from infer.errors import UsageError
from train.core.canvas import OPTIMISTIC, save
from train.core.files import write_table

FIGURES = {
    "figure-07-loss": ("loss", "loss"),
    "figure-08-balanced-accuracy": ("balanced_accuracy", "balanced accuracy"),
    "figure-09-true-negative-rate": ("true_negative_rate", "true-negative rate"),
    "figure-10-true-positive-rate": ("true_positive_rate", "true-positive rate"),
}
MODELS = {"baseline": "baseline", "moe": "mixture of experts"}
COLOURS = {"training": "#3f7fb3", "validation": "#e08a2e"}


def draw_curves(run: Path, folder: Path) -> None:
    """Write figures 7 to 10 from the report protocol's split, and all curves as one CSV.

    Raises:
        UsageError: the report protocol has not been run.
    """
    histories = read_histories(run)
    write_table(folder / "figure-07-10-curves.csv", pd.concat(histories, names=["model"]).reset_index(level=0))
    for name, (column, label) in FIGURES.items():
        save(_figure(histories, column, label), folder / f"{name}.png")


def read_histories(run: Path) -> dict[str, pd.DataFrame]:
    """Read each model's training history on the split, one row per epoch.

    Raises:
        UsageError: the report protocol has not been run.
    """
    histories = {}
    for model in MODELS:
        path = run / "report" / model / "split.history.csv"
        if not path.exists() or not (run / "report" / model / "split.safetensors").exists():
            raise UsageError(f"{run}: has no {model} curves. Run `python -m train evaluate --protocol report` first")
        histories[model] = pd.read_csv(path)
    return histories


def _figure(histories: dict[str, pd.DataFrame], column: str, label: str) -> Figure:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axes = figure.subplots(1, len(histories))
    for axis, (model, history) in zip(axes, histories.items(), strict=True):
        for part, colour in COLOURS.items():
            front = 3 if part == "training" else 2  # the smoother line, which the other would hide
            axis.plot(history["epoch"] + 1, history[f"{part}_{column}"], color=colour, label=part, zorder=front)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(MODELS[model])
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(f"80/20 split, seed 42 ({OPTIMISTIC}; training metrics are collected during the epoch)", fontsize=9)
    return figure
