"""Writes the results of the nested protocol, and how they were obtained, as CSV, JSON, Markdown and PNG.

A later report replaces an earlier one.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from train.core.canvas import MALIGNANT, NEUTRAL, REACTIVE, save
from train.core.files import write_table, write_text
from train.core.metrics import GREY_ZONE_COUNT, about_grey_zone
from train.core.performance import net_benefit
from train.data.bags import Bags
from train.evaluation.nested.protocol import Nested
from train.evaluation.nested.stacking import PERCENTS
from train.evaluation.nested.tables import (
    CLINICAL_ONLY,
    blind_table,
    difference_table,
    operating_point_table,
    patient_table,
    performance_table,
)

THRESHOLDS = np.linspace(0.01, 0.99, 99)  # of the decision curve
SHOWN = (
    "balanced_accuracy", "auc", "average_precision", "sensitivity", "specificity", "positive_predictive_value",
    "negative_predictive_value", "brier_score", "calibration_slope", "calibration_intercept",
)  # fmt: skip
SENT_ON = tuple(
    f"{name}_when_keeping_{percent}"
    for percent in PERCENTS
    for name in ("sensitivity", "specificity", "avoided_per_100")
)
GATE_SEES = ("constant", "sex", "log count", "age", "first model", "second model")
BEST = ("best_specificity_at_95_sensitivity", "best_specificity_at_98_sensitivity")
HOW = """\
95% intervals are by bootstrap over patients, stratified by class: the models and the share of malignant patients are
held fixed. Metrics of models with several repeats (5x) are means over the repeats; operating points, the decision curve
and differences that involve a model with one repeat are from the first repeat. Single models are calibrated, ensembles
are weighted means of calibrated models, a gate mixes two of them per patient; all this and the decision thresholds are
fitted inside the outer fold. There is no correction for the number of models and subgroups compared."""
BLIND = """\
Swapped: each held-out patient is judged by another held-out patient's pictures, everything else being unchanged.
Blank: by one white picture. Lost: the figure by the own pictures minus this one, paired. A model that loses nothing
has learnt nothing from pictures, whatever its AUC. A few leads, and ensembles with them, are not judged this way."""


def write_report(nested: Nested, bags: Bags, folder: Path, facts: dict[str, Any], seed: int, further: str = "") -> str:
    """Write everything and return the Markdown report.

    Args:
        nested: held-out predictions.
        bags: all patients.
        folder: where everything is written.
        facts: protocol, recipe, seed and what was chosen outside; printed above the tables.
        seed: random seed of the bootstrap.
        further: Markdown that the report ends with.
    """
    performance = performance_table(nested, bags, seed)
    differences = difference_table(nested, bags, seed)
    points = operating_point_table(nested, bags, seed)
    blind = blind_table(nested, bags, seed)
    curve = decision_curve(nested)
    folder.mkdir(exist_ok=True)
    for name, table in {
        "performance": performance,
        "differences": differences,
        "operating_points": points,
        "blind": blind,
        "decision_curve": curve,
        "patients": patient_table(nested, bags),
    }.items():
        write_table(folder / f"{name}.csv", table)
    figures = {
        "facts": facts,
        "performance": performance.to_dict("records"),
        "differences": differences.to_dict("records"),
        "operating_points": points.to_dict("records"),
        "blind": blind.to_dict("records"),
        "chosen": nested.chosen,
    }
    write_text(folder / "figures.json", json.dumps(figures, indent=1))
    _draw_decision_curve(curve, folder / "decision_curve.png")
    _draw_auc(performance, folder / "auc.png")
    higher = bags.labels[bags.clinical[:, 1] > GREY_ZONE_COUNT]
    grey_zone = about_grey_zone(len(higher), int(higher.sum()))
    text = markdown(performance, differences, points, blind, nested, facts, grey_zone) + further
    write_text(folder / "nested.md", text)
    return text


def decision_curve(nested: Nested) -> pd.DataFrame:
    """Columns: threshold; net benefit of referring everybody, nobody, or by each ensemble or clinical model."""
    columns = {"threshold": THRESHOLDS}
    for model, repeats in nested.predictions.items():
        if model not in nested.decisions and model not in CLINICAL_ONLY:
            continue
        labels = repeats[0].labels
        columns |= {"everybody": net_benefit(labels, np.ones(len(labels)), THRESHOLDS), "nobody": 0 * THRESHOLDS}
        columns[model] = net_benefit(labels, repeats[0].probability, THRESHOLDS)
    return pd.DataFrame(columns)


def markdown(
    performance: pd.DataFrame,
    differences: pd.DataFrame,
    points: pd.DataFrame,
    blind: pd.DataFrame,
    nested: Nested,
    facts: dict[str, Any],
    grey_zone: str,
) -> str:
    """All tables as Markdown, preceded by how they were obtained and what the grey zone is in these patients."""
    groups = list(performance["group"].unique())
    said = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    parts = [
        "# Nested evaluation",
        said,
        HOW,
        grey_zone,
        "## All patients",
        wide(performance, groups[0], SHOWN),
        "### Referral to flow cytometry\n\nThresholds with 95% or 98% sensitivity on the inner predictions, applied to "
        "the held-out patients.\nThe last two columns choose the threshold on the held-out labels themselves: they are "
        "optimistic.",
        wide(performance, groups[0], (*SENT_ON, *BEST)),
        f"## {groups[1].capitalize()}",
        wide(performance, groups[1], SHOWN),
        "## Compared with sex, count and age alone, and the ensemble with itself without a member",
        long(differences),
        "## By pictures that are not the patient's own",
        BLIND,
        without_seeing(blind),
        "## Operating points",
        long(points),
        "## Subgroups, AUC",
        by_group(performance, "auc"),
        "## Subgroups, balanced accuracy",
        by_group(performance, "balanced_accuracy"),
        "## Selected by the inner folds",
        _choices(nested),
    ]
    return "\n\n".join(parts) + "\n"


def wide(performance: pd.DataFrame, group: str, figures: tuple[str, ...]) -> str:
    """performance_table as Markdown for one group of patients: one row per model, one column per metric."""
    some = performance[(performance["group"] == group) & performance["figure"].isin(figures)]
    rows = {
        f"{model} ({part['repeats'].iloc[0]}x)": {row.figure: _cell(row) for row in part.itertuples()}
        for model, part in some.groupby("model", sort=False)
    }
    return table_text(pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(figures)), "model")


def without_seeing(blind: pd.DataFrame) -> str:
    """blind_table as Markdown: one row per model, pictures and group, one column per figure and its loss."""
    if blind.empty:
        return "No model sees pictures."
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for row in blind.itertuples():
        cells = rows.setdefault((f"{row.model} ({row.repeats}x)", str(row.pictures), str(row.group)), {})
        cells[str(row.figure)] = _cell(row)
        cells[f"lost: {row.figure}"] = f"{row.lost:+.3f} [{row.lost_low:+.3f}, {row.lost_high:+.3f}]"
    columns = list(next(iter(rows.values())))
    frame = pd.DataFrame(
        [{"pictures": key[1], "patients": key[2], **cells} for key, cells in rows.items()],
        index=[key[0] for key in rows],
        columns=["pictures", "patients", *columns],
    )
    return table_text(frame, "model")


def by_group(performance: pd.DataFrame, figure: str) -> str:
    """performance_table as Markdown for one metric: one row per subgroup, one column per model."""
    rows: dict[str, dict[str, str]] = {}
    for row in performance[performance["figure"] == figure].itertuples():
        key = f"{row.group}: {row.patients}, {row.malignant} malignant"
        rows.setdefault(key, {})[str(row.model)] = _cell(row)
    return table_text(pd.DataFrame.from_dict(rows, orient="index"), "patients")


def long(table: pd.DataFrame) -> str:
    """A table as Markdown, with value, low and high in one cell."""
    if table.empty:
        return "None."
    facts = table.drop(columns=["value", "low", "high"]).assign(value=[_cell(row) for row in table.itertuples()])
    return table_text(facts.set_index(facts.columns[0]), str(facts.columns[0]))


def _choices(nested: Nested) -> str:
    """For each ensemble and gate: how often each regularisation strength was selected, and the mean weights."""
    lines = [_gate_choices(nested, model) for model in _models_with(nested, "gate")]
    for model in _models_with(nested, "weights"):
        chosen = [one for one in nested.chosen if one["model"] == model]
        pulls = Counter(one["pull"] for one in chosen)
        which = Counter(str(one["ensemble"]) for one in chosen if "ensemble" in one)
        mean = ", ".join(weight_spread(chosen))
        times = ", ".join(f"{pull} {count} times" for pull, count in sorted(pulls.items(), key=str))
        if which:
            lines.append(f"- {model}: " + ", ".join(f"{name} {count} times" for name, count in which.items()) + ".")
            continue
        lines.append(
            f"- {model}: regularisation towards equal weights {times}; mean weights [smallest to largest] {mean}."
        )
    return "\n".join(lines) or "Only thresholds and calibrations."


def weight_spread(chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each member's mean weight over the outer folds of all repeats, and its smallest and largest: texts."""
    weights = pd.DataFrame([one["weights"] for one in chosen])
    return [
        f"{name} {column.mean():.2f} [{column.min():.2f} to {column.max():.2f}]" for name, column in weights.items()
    ]


def _gate_choices(nested: Nested, model: str) -> str:
    chosen = [one for one in nested.chosen if one["model"] == model]
    times = Counter(str(one["pull"]) for one in chosen)
    pulls = ", ".join(f"{pull} {count} times" for pull, count in sorted(times.items()))
    mean = np.mean([np.asarray(one["gate"], dtype=np.float64) for one in chosen], axis=0)
    seen = ", ".join(f"{name} {value:.2f}" for name, value in zip(GATE_SEES, mean, strict=True))
    return f"- {model}: regularisation towards one half {pulls}; mean weights of its inputs: {seen}."


def _models_with(nested: Nested, choice: str) -> list[str]:
    return list(dict.fromkeys(str(one["model"]) for one in nested.chosen if choice in one))


def _cell(row: Any) -> str:
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"


def table_text(frame: pd.DataFrame, corner: str) -> str:
    """A table as Markdown; the index is the first column, headed `corner`."""
    head = [corner, *map(str, frame.columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in frame.iterrows():
        lines.append("| " + " | ".join([str(name), *("" if pd.isna(cell) else str(cell) for cell in row)]) + " |")
    return "\n".join(lines)


def _draw_decision_curve(curve: pd.DataFrame, path: Path) -> None:
    figure = Canvas(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    lines = {"everybody": "--", "nobody": ":"}
    for name in curve.columns.drop("threshold"):
        style: dict[str, Any] = {"color": NEUTRAL, "linestyle": lines[name]} if name in lines else {}
        axes.plot(curve["threshold"], curve[name], label=name, **style)
    highest = max(0.05, 1.1 * float(curve["everybody"].iloc[0]))  # what nobody can surpass: the share who are malignant
    axes.set_ylim(-0.1 * highest, highest)  # sending everybody on falls without end
    axes.set_xlabel("threshold probability")
    axes.set_ylabel("net benefit of flow cytometry")
    axes.legend(fontsize=8)
    axes.set_title("Decision curve, held-out predictions of the first repeat", fontsize=9)
    save(figure, path)


def _draw_auc(performance: pd.DataFrame, path: Path) -> None:
    """AUC with intervals, for all patients and the grey zone side by side."""
    some = performance[performance["figure"] == "auc"]
    groups = list(some["group"].unique()[:2])
    figure = Canvas(figsize=(9, 4), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        part = some[some["group"] == group].iloc[::-1]
        for place, row in enumerate(part.itertuples()):
            colour = REACTIVE if row.model in CLINICAL_ONLY else MALIGNANT
            axes.plot([row.low, row.high], [place, place], color=colour)
            axes.plot([row.value], [place], "o", color=colour)
        axes.set_yticks(range(len(part)), list(part["model"]))
        axes.set_xlabel("AUC, 95% interval")
        axes.set_title(f"{group}", fontsize=9)
        axes.grid(alpha=0.3, axis="x")
    save(figure, path)
