"""Table 2: balanced accuracies under the report protocol, next to those stated in the report."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from infer.errors import UsageError
from train.core.files import write_table

FOLDS_MEAN = "folds_mean"
COLUMNS = ("training", "validation", FOLDS_MEAN, "folds_spread")


def read_figures(run: Path) -> dict[str, Any] | None:
    """What the report's protocol found in this run, as it wrote it; None if it has not been run."""
    path = run / "report" / "metrics.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def write_table_2(run: Path, folder: Path) -> pd.DataFrame:
    """Write table-2.csv and table-2.md. The report's test column is omitted: those labels are not public.

    Raises:
        UsageError: the report protocol has not been run.
    """
    facts = read_figures(run)
    if facts is None:
        raise UsageError(f"{run}: has no report/metrics.json. Run `python -m train evaluate --protocol report` first")
    rows = []
    for model, stated in facts["stated_in_report"].items():
        if model not in facts["models"]:
            continue
        figures = facts["models"][model]
        ours = {f"ours_{name}": figures[name] for name in COLUMNS}
        rows.append({"model": model, **ours, **{f"report_{name}": value for name, value in stated.items()}})
    table = pd.DataFrame(rows)
    write_table(folder / "table-2.csv", table)
    (folder / "table-2.md").write_text(_markdown(table, facts))
    return table


def _markdown(table: pd.DataFrame, facts: dict[str, object]) -> str:
    """The table as Markdown, preceded by a note on the protocol's weakness."""
    head = f"Balanced accuracy, {facts['patients']} patients, recipe {facts['recipe']}, seed {facts['seed']}.\n"
    lines = [
        head,
        f"{facts['protocol']}.\n",
        "| " + " | ".join(table.columns) + " |",
        "|---" * len(table.columns) + "|",
    ]
    for _, row in table.iterrows():
        cells = ["" if pd.isna(value) else value if isinstance(value, str) else f"{value:.3f}" for value in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
