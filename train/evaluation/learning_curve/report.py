"""The learning curve for people: a table, one sentence, and a plot; beside the CSV in RUN/learning_curve."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from train.core.canvas import MALIGNANT, NEUTRAL, REACTIVE, save
from train.core.files import write_table, write_text
from train.evaluation.learning_curve.measure import TOGETHER, Curve

FOLDER = "learning_curve"
TITLES = {"auc": "AUC", "grey_zone_auc": "AUC, grey zone", "balanced_accuracy": "balanced accuracy"}
COLOURS = (NEUTRAL, REACTIVE, MALIGNANT, "#5d8a3a", "#7a5195", "#222222")
HOW = (
    "Means over repeats; 95% intervals by bootstrap over the patients who are judged. They hold the fitted models\n"
    "fixed: which patients a smaller size has is averaged over folds and repeats, and is not in the intervals.\n"
    "100% are the training patients of an outer fold, four fifths of the cohort."
)


def write_curve(curve: Curve, run: Path) -> str:
    """Write learning_curve.csv, .png and .txt into RUN/learning_curve; returns the text."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    write_table(folder / "learning_curve.csv", curve.table)
    _draw(curve.table, folder / "learning_curve.png")
    left_out = [f"Left out: {one}." for one in curve.left_out]
    text = "\n\n".join([wide(curve.table).to_string(), HOW, *left_out, conclusion(curve.table)]) + "\n"
    write_text(folder / "learning_curve.txt", text)
    return text


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row per figure and model, one column per size, and last what the last size brought."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    columns = []
    for row in table.sort_values("share", kind="stable").itertuples():
        size = f"{row.share:.0%}: {row.patients:.0f} patients"
        columns.append(size)
        cells = rows.setdefault((TITLES[str(row.figure)], str(row.model)), {})
        cells[size] = f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
        cells["the last brought"] = _gain(row) if np.isfinite(float(row.brought)) else ""  # type: ignore[arg-type]
    order = [(title, model) for title in TITLES.values() for model in dict.fromkeys(table["model"])]
    frame = pd.DataFrame([rows[key] for key in order if key in rows], [key for key in order if key in rows])
    frame.index = pd.MultiIndex.from_tuples(frame.index, names=["figure", "model"])
    return frame[[*dict.fromkeys(columns), "the last brought"]].fillna("")


def conclusion(table: pd.DataFrame) -> str:
    """Whether the AUC of the ensemble, or of the last member if there is no ensemble, is still rising."""
    models = list(dict.fromkeys(table["model"]))
    some = table[table["figure"] == "auc"]
    compared = some[np.isfinite(some["brought"]) & (some["share"] == 1)]
    model = TOGETHER if TOGETHER in set(compared["model"]) else next(one for one in models[::-1] if _has(compared, one))
    row: Any = next(compared[compared["model"] == model].itertuples())
    shares = some.loc[some["model"] == model, "share"]
    part = f"The last {1 - shares.iloc[-2]:.0%} of the training patients"
    said = f"{part} brought the AUC of {_named(model)} {_gain(row)}, a rise in {row.rose_in} of {row.repeats} repeats:"
    if row.brought_low > 0:
        return f"{said} it was still rising, so more patients may help."
    if row.brought_high < 0:
        return f"{said} it fell, so these figures do not say what more patients would bring."
    return f"{said} more patients are not shown to help, nor is it shown that they would not."


def _has(table: pd.DataFrame, model: str) -> bool:
    return bool((table["model"] == model).any())


def _named(model: str) -> str:
    return f"the {model}" if model == TOGETHER else model


def _gain(row: Any) -> str:
    return f"{row.brought:+.3f} [{row.brought_low:+.3f}, {row.brought_high:+.3f}]"


def _draw(table: pd.DataFrame, path: Path) -> None:
    """A panel per figure: values with intervals over the number of training patients, a line per model."""
    models = list(dict.fromkeys(table["model"]))
    titles = [name for name in TITLES if (table["figure"] == name).any()]
    figure = Canvas(figsize=(4 * len(titles), 4), layout="constrained")
    span = float(np.ptp(table["patients"]))
    for axes, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles, strict=True):
        for place, model in enumerate(models):
            part = table[(table["figure"] == title) & (table["model"] == model)]
            beside = 0.012 * span * (place - (len(models) - 1) / 2)  # so that intervals do not cover each other
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(part["patients"] + beside, part["value"], "o-", color=colour, markersize=4, label=model)
            axes.vlines(part["patients"] + beside, part["low"], part["high"], color=colour, alpha=0.5)
        axes.set_xlabel("patients trained on")
        axes.set_title(f"{TITLES[title]}, nested, 95% intervals", fontsize=9)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8, loc="best")
    save(figure, path)
