"""The figures of the ways: each with its interval, and the paired difference from the frozen network."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from train.core.arrays import Floats
from train.core.performance import Estimate, estimate, paired_difference
from train.data.bags import Bags
from train.data.whose_pictures import COLUMNS, OWN
from train.experiments.magnification import three_figures
from train.experiments.tuning.judges import OWN_HEAD, REGRESSION
from train.experiments.tuning.ways import FROZEN

Whole = dict[tuple[str, str], dict[str, Floats]]  # way, judge -> column -> (P,)
NOTHING = Estimate(np.nan, np.nan, np.nan)


def figures(bags: Bags, predictions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Figures of the ways that have predicted every patient.

    Columns: way; judge; pictures (own, swapped, blank); figure; value, low, high; difference, difference_low,
    difference_high from the frozen network by the same judge (a way's own head: from the frozen network's regression);
    seconds a training took, the mean over folds.

    Args:
        bags: all patients.
        predictions: way, fold, judge, patient_id, COLUMNS, seconds; one row per held-out patient.
        seed: random seed of the bootstrap.
    """
    whole = dict(_whole(bags, predictions))
    seconds = predictions.groupby("way")["seconds"].mean()
    asked = three_figures(bags, seed)
    rows: list[dict[str, object]] = []
    for (way, judge), columns in whole.items():
        other = whole.get((FROZEN, REGRESSION if judge == OWN_HEAD else judge))
        for column, probability in columns.items():
            for title, one in asked.items():
                found = estimate(one.figure, one.of([probability]), one.weights)
                more = NOTHING
                if other is not None and way != FROZEN and column == OWN:
                    pair = one.of([probability]), one.of([other[column]])
                    more = paired_difference(one.figure, *pair, one.weights)
                facts = {"way": way, "judge": judge, "pictures": "own" if column == OWN else column, "figure": title}
                value = {"value": found.value, "low": found.low, "high": found.high}
                gain = {"difference": more.value, "difference_low": more.low, "difference_high": more.high}
                rows.append({**facts, **value, **gain, "seconds": seconds[way]})
    return pd.DataFrame(rows)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One column per way and judge, one row per figure and kind of pictures, with intervals of the own ones."""
    found: dict[str, dict[str, str]] = {}
    for row in table.itertuples():
        cells = found.setdefault(f"{row.way}, {row.judge}", {})
        own = row.pictures == "own"
        interval = f" [{row.low:.3f}, {row.high:.3f}]" if own else ""
        cells[f"{row.figure}, {row.pictures}"] = f"{row.value:.3f}{interval}"
        if own and not np.isnan(row.difference):  # type: ignore[arg-type]
            text = f"{row.difference:+.3f} [{row.difference_low:+.3f}, {row.difference_high:+.3f}]"
            cells[f"{row.figure}, less frozen"] = text
    return pd.DataFrame(found).fillna("")


def _whole(bags: Bags, predictions: pd.DataFrame) -> Iterator[tuple[tuple[str, str], dict[str, Floats]]]:
    for names, part in predictions.groupby(["way", "judge"], sort=False):
        if len(part) == len(bags):
            ordered = part.set_index("patient_id").loc[bags.patient_ids]
            yield (str(names[0]), str(names[1])), {one: ordered[one].to_numpy(np.float64) for one in COLUMNS}
