"""Histograms of sex, count and age: of all patients (report, figure 2) and by class (figure 3)."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from train.core.canvas import MALIGNANT, NEUTRAL, REACTIVE, save
from train.core.files import write_table

BINS = 20
TITLES = {"sex": "sex", "lymph_count": "lymphocytes, 10^9/L, log scale", "age_years": "age, years"}
GROUPS = {"all": NEUTRAL, "reactive": REACTIVE, "malignant": MALIGNANT}


def draw_cohort(run: Path, folder: Path) -> None:
    """Write figure-02 and figure-03, and their bins as CSV: column, from, to, all, reactive, malignant."""
    patients = pd.read_csv(run / "crops" / "patients.csv", dtype={"patient_id": str}, keep_default_na=False)
    bars = histograms(patients)
    write_table(folder / "figure-02-03-histograms.csv", bars)
    save(_figure(bars, ("all",), f"{len(patients)} patients"), folder / "figure-02-patients.png")
    save(_figure(bars, ("reactive", "malignant"), "patients by class"), folder / "figure-03-by-class.png")


def histograms(patients: pd.DataFrame) -> pd.DataFrame:
    """Number of patients per bin; every patient is in exactly one bin of each column."""
    parts = []
    for column in TITLES:
        values = patients[column].to_numpy(np.float64)
        edges = _edges(column, values)
        rows = {"column": column, "from": edges[:-1], "to": edges[1:]}
        for group in GROUPS:
            chosen = np.ones(len(values), dtype=bool) if group == "all" else patients["label"] == (group == "malignant")
            rows[group] = np.histogram(values[chosen], edges)[0]
        parts.append(pd.DataFrame(rows))
    return pd.concat(parts, ignore_index=True)


def _edges(column: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if column == "sex":
        return np.array([-0.5, 0.5, 1.5])
    if column == "lymph_count":  # log scale: most counts are in the lowest tenth of their range
        edges = np.geomspace(values.min(), values.max(), BINS + 1)
        edges[[0, -1]] = values.min(), values.max()  # rounding must not exclude the outermost patients
        return edges
    return np.linspace(values.min(), values.max(), BINS + 1)


def _figure(bars: pd.DataFrame, groups: tuple[str, ...], title: str) -> Figure:
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, len(TITLES))
    for axis, (column, label) in zip(axes, TITLES.items(), strict=True):
        rows = bars[bars["column"] == column]
        for group in groups:
            edges = [*rows["from"], rows["to"].iloc[-1]]
            axis.stairs(rows[group], edges, fill=True, alpha=0.6, color=GROUPS[group], label=group)
        axis.set_xlabel(label)
        axis.set_ylabel("patients")
        if column == "sex":
            axis.set_xticks([0, 1], ["male", "female"])
        if column == "lymph_count":
            axis.set_xscale("log")
    axes[0].legend()
    figure.suptitle(title)
    return figure
