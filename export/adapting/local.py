"""The patients a bundle is adapted to, as their validation left them: `python -m train validate`."""

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infer.bundle.load import Bundle
from infer.errors import UsageError
from infer.output.folder import RECORD as RUN
from infer.output.kept import KEPT, read_results
from infer.scoring.result import PatientResult
from train.core.arrays import Booleans, Floats, Labels
from train.evaluation.validation.scored import SCORED
from train.evaluation.validation.validate import PATIENTS, RECORD

# A validation that was written by an earlier version lacks one of these.
NEEDED = ("patient_id", "label", "probability", "trained_on")


@dataclass(frozen=True)
class Local:
    """Labelled patients of a hospital, scored by the bundle and unknown to it; arrays are (P,)."""

    labels: Labels  # 1 malignant, 0 reactive
    probability: Floats  # of malignant, by the bundle
    alone: Floats  # by sex, age and count alone, by the bundle
    held_up: Booleans  # unlike the patients whom the bundle compares with
    measures: dict[str, Floats]  # by name, those that all patients have
    sizes: tuple[tuple[int, int], ...]  # width and height of pictures that the bundle's training did not have
    left_out: int  # patients whom the bundle was trained on
    table_sha256: str
    seen: str  # salted digests of their pictures
    auc: tuple[float, float, float]  # as validated, with its 95% interval
    options: dict[str, Any]  # of the run that scored them

    @property
    def prevalence(self) -> float:
        """The share of malignant patients."""
        return float(self.labels.mean())

    @property
    def reference_date(self) -> dt.date:
        """At which ages were taken where there is no sample date."""
        return dt.date.fromisoformat(self.options["reference_date"])


def read_local(folder: Path, bundle: Bundle) -> Local:
    """Read a validation.

    Args:
        folder: where `python -m train validate` wrote.
        bundle: that was validated.

    Raises:
        UsageError: it is no validation of this bundle, was written by an earlier version, or its patients are those
            that the bundle was trained on or adapted to.
        OutputError: what it left of the run is damaged.
    """
    record = _record(folder)
    if record.get("bundle") != bundle.bundle_id:
        raise UsageError(
            f"{folder}: is a validation of bundle {str(record.get('bundle'))[:12]}, not of {bundle.short_id}. "
            "Validate the bundle that is to be adapted"
        )
    table = pd.read_csv(folder / PATIENTS, dtype={"patient_id": str}, keep_default_na=False)
    if not set(NEEDED) <= set(table) or "pictures" not in record:
        raise UsageError(f"{folder}: was written by an earlier version of this program. Validate the bundle again")
    scored = table[table["probability"] != ""]
    known = scored["trained_on"].astype(str).str.startswith("1")
    if record["table_of_training"] or known.all():
        raise UsageError(
            f"{folder}: its patients are those that the bundle was trained on or adapted to. Validate it on others"
        )
    kept = scored[~known]
    if kept["label"].nunique() < 2:
        raise UsageError(f"{folder}: has patients of one class only. Validate the bundle on patients of both")
    run = json.loads((folder / SCORED / RUN).read_text(encoding="utf-8"))
    results = {one.patient_id: one for one in read_results(folder / SCORED / KEPT, run["cohort"]["patients"])}
    auc = next(row for row in record["performance"] if (row["model"], row["figure"]) == ("ensemble", "auc"))
    of_kept = [results[patient] for patient in kept["patient_id"]]
    return Local(
        labels=kept["label"].to_numpy(np.int64),
        probability=np.array([one.scores.probability for one in of_kept if one.scores]),
        alone=np.array([one.scores.clinical for one in of_kept if one.scores], np.float64),
        held_up=np.array([bool(one.unusual) for one in of_kept]),
        measures=_measures(of_kept),
        sizes=_sizes(of_kept),
        left_out=int(known.sum()),
        table_sha256=record["table_sha256"],
        seen=record["pictures"],
        auc=(auc["value"], auc["low"], auc["high"]),
        options=run["options"],
    )


def _record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder}: holds no finished validation ({RECORD}). Run `python -m train validate` first"
        ) from error
    return record


def _measures(results: list[PatientResult]) -> dict[str, Floats]:
    names = set(results[0].measures).intersection(*(one.measures for one in results))
    return {name: np.array([one.measures[name] for one in results]) for name in sorted(names)}


def _sizes(results: list[PatientResult]) -> tuple[tuple[int, int], ...]:
    found = {size for one in results for size in one.unusual_sizes}
    pairs = (size.split(" x ") for size in sorted(found))
    return tuple((int(width), int(height)) for width, height in pairs)
