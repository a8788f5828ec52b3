"""Box plot of scikit-learn's classifiers compared with the baseline (report, figure 6)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from infer.errors import UsageError
from train.core.canvas import OPTIMISTIC, save
from train.experiments.classifiers import SCORES_FILE
from train.figures.table import FOLDS_MEAN, read_figures
from train.members.naive_bayes import FOLDER

HIGHLIGHTED = "GaussianNB"  # the report's choice
COLOUR, HIGHLIGHT, BASELINE_COLOUR = "#c9d3de", "#e08a2e", "#b3202c"


@dataclass(frozen=True)
class Boxes:
    """The data of the plot, best classifier first."""

    names: list[str]  # C classifiers
    accuracies: npt.NDArray[np.float64]  # (C, folds) balanced accuracies
    protocol: str
    baseline: float | None  # table 2's mean over folds; None if the run has no baseline under the report's protocol


def draw_classifiers(run: Path, path: Path) -> None:
    """Write the box plot as PNG, only from the tables in the run folder.

    Raises:
        UsageError: the run folder has no comparison of classifiers.
    """
    save(box_plot(read_boxes(run)), path)


def read_boxes(run: Path) -> Boxes:
    """Read the classifiers, sorted by decreasing median, then decreasing mean, then name.

    Raises:
        UsageError: the run folder has no comparison of classifiers.
    """
    path = run / FOLDER / SCORES_FILE
    if not path.exists():
        raise UsageError(f"{run}: has no comparison of classifiers. Run `python -m train naive-bayes --compare` first")
    scores = pd.read_csv(path, keep_default_na=False)
    wide = scores.pivot(index="classifier", columns="fold", values="balanced_accuracy")
    rank = pd.DataFrame({"median": -wide.median(axis=1), "mean": -wide.mean(axis=1), "name": wide.index})
    wide = wide.loc[rank.sort_values(["median", "mean", "name"]).index]
    # Not the member's out-of-fold predictions: those are other trainings on other folds, without a picked epoch.
    models = (read_figures(run) or {"models": {}})["models"]
    level = float(models["baseline"][FOLDS_MEAN]) if "baseline" in models else None
    return Boxes(wide.index.tolist(), wide.to_numpy(), str(scores["protocol"].iloc[0]), level)


def box_plot(boxes: Boxes) -> Figure:
    """One box per classifier, the best at the top, one point per fold, and the baseline as a line."""
    number = len(boxes.names)
    figure = Figure(figsize=(9, 2 + 0.24 * number), layout="constrained")
    axes = figure.add_subplot()
    heights = np.arange(number, 0, -1)
    drawn = axes.boxplot(
        list(boxes.accuracies),
        positions=heights,
        orientation="horizontal",
        widths=0.7,
        patch_artist=True,
        showfliers=False,  # every fold is drawn as a point anyway
        tick_labels=boxes.names,
        medianprops={"color": "black", "gid": "median"},
    )
    for name, box in zip(boxes.names, drawn["boxes"], strict=True):
        box.set_facecolor(HIGHLIGHT if name == HIGHLIGHTED else COLOUR)
    axes.plot(boxes.accuracies, heights[:, None], ".", color="black", markersize=3, zorder=3)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == HIGHLIGHTED else "normal")
    if boxes.baseline is not None:
        line = axes.axvline(boxes.baseline, color=BASELINE_COLOUR, linestyle="--", gid="baseline")
        text = f"baseline CNN, mean over folds in table 2 ({OPTIMISTIC}): {boxes.baseline:.3f}"
        figure.legend([line], [text], loc="outside lower center", frameon=False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("balanced accuracy on the held-out fold")
    axes.set_title(_title(boxes))
    return figure


def _title(boxes: Boxes) -> str:
    scaling = {"report": "scaled over all patients, optimistic", "honest": "scaled inside the fold"}
    how = f"{boxes.accuracies.shape[1]}-fold, {boxes.protocol} protocol ({scaling.get(boxes.protocol, 'unknown')})"
    without = (
        ""
        if boxes.baseline is not None
        else "\nno baseline under the report's protocol in this run: its line is not drawn"
    )
    return f"scikit-learn classifiers on 21 features per patient\n{how}{without}"
