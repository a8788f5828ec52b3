"""The validation as one HTML page: sentences, tables, two plots. No script, nothing from outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure as Canvas

from train.core.canvas import MALIGNANT, NEUTRAL, REACTIVE
from train.core.html import as_png, environment
from train.core.texts import interval
from train.evaluation.validation.cohort import Rows
from train.evaluation.validation.figures import CLINICAL, ENSEMBLE, HIGH, LOW, Figures
from train.evaluation.validation.said import Said
from train.evaluation.validation.tripod import ITEMS

TEMPLATES = Path(__file__).parent / "templates"
TITLES = {
    "auc": "AUC", "average_precision": "Average precision", "brier_score": "Brier score",
    "calibration_slope": "Calibration slope", "calibration_intercept": "Calibration in the large",
    "balanced_accuracy": "Balanced accuracy", "sensitivity": "Sensitivity", "specificity": "Specificity",
    "positive_predictive_value": "Positive predictive value", "negative_predictive_value": "Negative predictive value",
}  # fmt: skip


@dataclass(frozen=True)
class Who:
    """The patients, as rows of tables."""

    flow: Rows
    characteristics: Rows


def render(said: Said, figures: Figures, facts: Sequence[tuple[str, str]], who: Who) -> str:
    """The page.

    Args:
        facts: title and value of each fact about bundle and patients.
        who: flow and characteristics of the patients.
    """
    return (
        environment(TEMPLATES)
        .get_template("validation.html.j2")
        .render(
            said=said,
            facts=facts,
            who=who,
            tripod=ITEMS,
            overall=_overall(figures.performance),
            points=_points(figures.points),
            groups=_groups(figures.performance),
            calibration=as_png(calibration_plot(figures.calibration)),
            curve=as_png(decision_plot(figures.decision_curve)),
        )
    )


def _overall(performance: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Models, and a row for each figure."""
    of_all = performance[performance["group"] == "all"]
    models = list(dict.fromkeys(of_all["model"]))
    rows = []
    for name, title in TITLES.items():
        cells = {row["model"]: interval(row) for row in of_all[of_all["figure"] == name].to_dict("records")}
        rows.append([title, *(cells.get(model, "") for model in models)])
    return models, rows


def _points(points: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    names = list(dict.fromkeys(points["operating_point"]))
    rows = []
    for figure in dict.fromkeys(points["figure"]):
        cells = {row["operating_point"]: interval(row) for row in points[points["figure"] == figure].to_dict("records")}
        rows.append([str(figure).capitalize(), *(cells.get(name, "") for name in names)])
    return names, rows


def _groups(performance: pd.DataFrame) -> list[list[str]]:
    """Group, patients, malignant; AUC and balanced accuracy of the ensemble, AUC of sex, age and count."""
    rows = []
    for group in dict.fromkeys(performance["group"]):
        of = performance[performance["group"] == group]
        cells = {(row["model"], row["figure"]): interval(row) for row in of.to_dict("records")}
        wanted = ((ENSEMBLE, "auc"), (ENSEMBLE, "balanced_accuracy"), (CLINICAL, "auc"))
        size = [str(of["patients"].iloc[0]), str(of["malignant"].iloc[0])]
        rows.append([str(group), *size, *(cells.get(one, "") for one in wanted)])
    return rows


def calibration_plot(curve: pd.DataFrame) -> Canvas:
    """Share of malignant patients by probability, with Wilson's intervals."""
    canvas = Canvas(figsize=(5, 4.2), layout="constrained")
    axes = canvas.subplots()
    axes.plot([0, 1], [0, 1], color=NEUTRAL, linestyle="--", label="ideal")
    below, above = (curve["malignant"] - curve["low"]).clip(0), (curve["high"] - curve["malignant"]).clip(0)
    axes.errorbar(curve["predicted"], curve["malignant"], yerr=[below, above], fmt="o-", color=MALIGNANT, capsize=3)
    axes.set(xlabel="probability of malignancy, mean of a fifth of the patients", ylabel="share who are malignant")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return canvas


def decision_plot(curve: pd.DataFrame, titles: Mapping[str, str] | None = None) -> Canvas:
    """Net benefit by threshold; `titles` renames curves."""
    canvas = Canvas(figsize=(5, 4.2), layout="constrained")
    axes = canvas.subplots()
    looks = {
        ENSEMBLE: (MALIGNANT, "-"),
        CLINICAL: (REACTIVE, "-."),
        "everybody": (NEUTRAL, "--"),
        "nobody": (NEUTRAL, ":"),
    }
    if LOW in curve:
        axes.fill_between(curve["threshold"], curve[LOW], curve[HIGH], color=MALIGNANT, alpha=0.15, linewidth=0)
    for name, (colour, line) in looks.items():
        if name in curve:
            axes.plot(
                curve["threshold"], curve[name], color=colour, linestyle=line, label=(titles or {}).get(name, name)
            )
    highest = max(0.05, float(curve["everybody"].iloc[0]) * 1.1)
    axes.set(xlabel="probability from which flow cytometry is worth it", ylabel="net benefit")
    axes.set(xlim=(0, 1), ylim=(-0.1 * highest, highest))
    axes.legend(frameon=False)
    return canvas
