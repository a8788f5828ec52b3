"""The tables of the page: a head and rows of text."""

from collections.abc import Mapping

import numpy as np

from train.core.arrays import Floats
from train.core.metrics import GREY_ZONE_COUNT
from train.core.texts import interval, number
from train.page.finished_run import FinishedRun
from train.page.judged import Confusion, Judged

Table = tuple[list[str], list[list[str]]]
QUANTILES = (0.05, 0.5, 0.95)


def patients(found: FinishedRun) -> Table:
    """Number, and medians with 5th and 95th percentile, of each class and of all."""
    sex, count, age = found.bags.clinical.astype(np.float64).T
    pictures = np.diff(found.bags.offsets).astype(np.float64)
    rows = []
    for title, some in (
        ("Reactive", found.bags.labels == 0),
        ("Malignant", found.bags.labels == 1),
        ("All", np.ones(len(found.bags), np.bool_)),
    ):
        rows.append(
            [
                title,
                str(int(some.sum())),
                f"{int(sex[some].sum())}",
                _spread(age[some], 0),
                _spread(count[some], 1),
                _spread(pictures[some], 0),
                str(int((count[some] <= GREY_ZONE_COUNT).sum())),
            ]
        )
    head = [
        "Class", "Patients", "Women", "Age, years", "Lymphocytes, 10^9/L", "Pictures a patient",
        f"Count up to {GREY_ZONE_COUNT}",
    ]  # fmt: skip
    return head, rows


def models(found: FinishedRun, judged: Judged) -> Table:
    """Members, ensemble, sex age and count alone."""
    head = [
        "Model", "AUC", "AUC, pictures only", f"AUC, count up to {GREY_ZONE_COUNT}", "Balanced accuracy", "Weight",
        "Influence",
    ]  # fmt: skip
    rows = []
    for member in found.members:
        alone = found.metrics.get(f"{member.name}, pictures only", {})
        weight = found.ensemble.weights.get(member.name)
        influence = found.metrics.get("influence", {}).get(member.name)
        rows.append(
            [
                member.title.capitalize() if member.title.islower() else member.title,
                *_figures(found.metrics.get(member.name, {}), _auc(alone)),
                "not in it" if weight is None else number(weight),
                "" if influence is None else number(influence),
            ]
        )
    rows.append(["Ensemble", *_figures(found.metrics["ensemble"], ""), "", ""])
    for name, found_auc in judged.clinical.items():
        balanced = number(judged.clinical_balanced[name])
        rows.append([f"Sex, age and count alone: {name}", interval(vars(found_auc)), "", "", balanced, "", ""])
    return head, rows


def folds(found: FinishedRun, judged: Judged) -> Table:
    """AUC in each fold."""
    names = {"ensemble": "Ensemble", **{one.name: one.title for one in found.members}}
    rows = [
        [
            f"Fold {fold + 1}",
            str(size),
            str(malignant),
            *(number(aucs[name]) if name in aucs else "one class" for name in names),
        ]
        for fold, size, malignant, aucs in judged.folds
    ]
    return ["Fold", "Patients", "Malignant", *(f"AUC, {title}" for title in names.values())], rows


def confusion(one: Confusion) -> Table:
    """Patients by diagnosis and decision."""
    head = ["Diagnosis", "Called reactive", "Refer", "Called malignant"]
    return head, [[title, *map(str, row)] for title, row in zip(("Reactive", "Malignant"), one.patients, strict=True)]


def thresholds(one: Confusion) -> str:
    """The bundle's thresholds, in words."""
    low, high = number(one.point.refer_low), number(one.point.refer_high)
    if low == high:
        return f"reactive below {low}, malignant from there on; nobody is referred by probability"
    return f"reactive below {low}, malignant from {high} on, refer between"


def _figures(figures: Mapping[str, float], pictures_only: str) -> list[str]:
    balanced = number(figures["balanced_accuracy"]) if "balanced_accuracy" in figures else ""
    return [_auc(figures), pictures_only, _auc(figures, "grey_zone_auc"), balanced]


def _auc(figures: Mapping[str, float], name: str = "auc") -> str:
    if name not in figures:
        return ""
    return interval({"value": figures[name], "low": figures[f"{name}_low"], "high": figures[f"{name}_high"]})


def _spread(values: Floats, digits: int) -> str:
    if not len(values):
        return ""
    low, middle, high = np.quantile(values, QUANTILES)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
