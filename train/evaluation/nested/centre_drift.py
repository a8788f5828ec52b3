"""How the centres differ: what is measured on the patients and pictures of each two of them.

Two by two, because a centre that differs would make all others differ from the rest. Tested as scoring tests a night's
patients against the training patients (infer/drift/compare.py), corrected for all measures of all pairs together.
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from infer.drift.compare import holm, p_values, pool
from infer.drift.measures import TITLES, in_order
from train.core.arrays import Booleans, Floats
from train.core.files import write_table
from train.core.performance import RESAMPLES
from train.data.bags import Bags
from train.data.centres import LEAST, centre_groups, has_figures
from train.data.measures import of_patients, of_pictures
from train.evaluation.nested.report import table_text

FILE = "centres.csv"
LEVEL = 0.05
HOW = f"""\
Each two centres of {LEAST} patients or more: measures with p below {LEVEL:.2f} after Holm's correction for all measures
of all pairs; `{FILE}` has every one. The difference is of means, the first centre's less the other's, in standard
deviations within the two, with a 95% interval by bootstrap over patients; the largest come first. Centres with other
shares of malignant patients differ by that, too."""
ELSEWHERE = (
    "None of these figures is of a centre that is not among these, and no interval says how such a one would differ."
)


def centre_report(bags: Bags, folder: Path, seed: int) -> str:
    """Write FOLDER/centres.csv and return the report's part on centres as Markdown; empty without centres."""
    if bags.centres is None:
        return ""
    groups = centre_groups(bags.centres)
    drift = drift_table(bags, seed)
    write_table(folder / FILE, drift)
    sizes = pd.DataFrame({name: _size(bags, chosen) for name, chosen in groups.items()}).T
    found = drift[drift["p_holm"] < LEVEL].sort_values("difference", key=np.abs, ascending=False)
    rows = [
        {
            "from": row.other,
            "measure": TITLES.get(str(row.measure), str(row.measure)),
            "is": row.direction,
            "difference": f"{row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}]",
            "p": f"{row.p_holm:.4f}",
        }
        for row in found.itertuples()
    ]
    differing = table_text(pd.DataFrame(rows, list(found["centre"])), "centre") if rows else ""
    small = [name for name, chosen in groups.items() if chosen.sum() < LEAST]
    left_out = f"Not compared, fewer than {LEAST} patients: {', '.join(small)}." if small else ""
    parts = [
        "## Centres",
        table_text(sizes, "centre"),
        ELSEWHERE,
        "### Drift between centres",
        HOW,
        in_short(drift),
        differing,
        left_out,
    ]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def in_short(drift: pd.DataFrame) -> str:
    """In how many measures each pair of centres differs, a line for each pair."""
    return "\n".join(
        f"- {centre} and {other} differ in {(of['p_holm'] < LEVEL).sum()} of {len(of)} measures."
        for (centre, other), of in drift.groupby(["centre", "other"], sort=False)
    )


def drift_table(bags: Bags, seed: int) -> pd.DataFrame:
    """How each two centres with LEAST patients or more differ.

    Columns: centre, other, measure, difference, low, high, p, p_holm, direction. The direction, what the first centre's
    values are, is of location or of spread (`infer.drift.compare.Pooled`), the difference of location alone.
    """
    values = {**of_pictures(bags), **of_patients(bags)}
    measures = in_order(values)
    groups = {name: chosen for name, chosen in centre_groups(bags.centres).items() if chosen.sum() >= LEAST}
    rows = []
    for (name, mine), (other, theirs) in itertools.combinations(groups.items(), 2):
        pairs = [pool(values[measure][theirs], values[measure][mine]) for measure in measures]
        found = p_values(pairs, int(mine.sum()))
        for measure, pair, p in zip(measures, pairs, found, strict=True):
            difference, low, high = _difference(values[measure][mine], values[measure][theirs], seed)
            facts = {"centre": name, "other": other, "measure": measure}
            interval = {"difference": difference, "low": low, "high": high}
            rows.append({**facts, **interval, "p": p, "direction": pair.direction})
    columns = ["centre", "other", "measure", "difference", "low", "high", "p", "direction"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(7, "p_holm", holm(table["p"].tolist()))
    return table


def _difference(mine: Floats, theirs: Floats, seed: int) -> tuple[float, float, float]:
    """Cohen's d of one group's values against another's, with a 95% interval; 0 where nothing varies within them."""
    rng = np.random.default_rng(seed)
    middle = theirs.mean()  # taken off first, so that variances are not differences of large numbers
    means, squares, freedom = [], [], 0
    for group in (mine - middle, theirs - middle):
        number = len(group)
        drawn = rng.multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
        weights = np.concatenate([np.ones((1, number)), drawn]) / number  # the patients themselves come first
        mean = weights @ group
        means.append(mean)
        squares.append(number * np.maximum(weights @ group**2 - mean**2, 0))
        freedom += number - 1
    spread = np.sqrt((squares[0] + squares[1]) / freedom)
    varies = spread > 1e-9 * (np.abs(theirs).max() + 1)
    found = np.divide(means[0] - means[1], spread, out=np.zeros_like(spread), where=varies)
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return float(found[0]), float(low), float(high)


def _size(bags: Bags, chosen: Booleans) -> dict[str, object]:
    return {
        "patients": int(chosen.sum()),
        "malignant": int(bags.labels[chosen].sum()),
        "pictures": int(np.diff(bags.offsets)[chosen].sum()),
        "figures of its own": "yes" if has_figures(bags.labels, chosen) else f"no, fewer than {LEAST} of a class",
    }
