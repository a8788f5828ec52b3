"""The patients a bundle is adapted to, as their validation left them: `python -m train validate`."""

import datetime as dt
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infer.bundle.load import Bundle
from infer.errors import LymphoError, UsageError
from infer.output.kept import KEPT, read_header, read_results
from infer.output.names import RECORD as RUN
from infer.scoring.result import PatientResult, Scores
from train.core.arrays import Booleans, Floats, Labels
from train.core.performance import FIGURES, Estimate, Predictions, estimate, resamples
from train.evaluation.validation.scored import SCORED
from train.evaluation.validation.validate import PATIENTS, RECORD

NEEDED = {"patient_id", "label", "trained_on"}
USUAL_SHARE = 0.05  # of the patients: a size of picture that fewer have is not usual here


@dataclass(frozen=True)
class Local:
    """Labelled patients of a hospital, scored by the bundle; arrays are (P,)."""

    labels: Labels  # 1 malignant, 0 reactive
    probability: Floats  # of malignant, by the bundle
    alone: Floats  # by sex, age and count alone, by the bundle
    held_up: Booleans  # whose pictures are unlike those of the patients that the bundle compares with
    disagree: Booleans  # whose members disagree above the bundle's bound, before and after: adapting does not change it
    measures: dict[str, Floats]  # by name, those that all patients have
    sizes: tuple[tuple[int, int], ...]  # width and height of pictures that the bundle's training did not have
    left_out: int  # patients whom the bundle was trained on
    told: bool  # whether the bundle tells which pictures it was trained on
    table_sha256: str
    seen: str  # salted digests of their pictures
    options: dict[str, Any]  # of the run that scored them
    precision: str  # in which it computed: float32, int8

    @property
    def prevalence(self) -> float:
        """The share of malignant patients."""
        return float(self.labels.mean())

    @property
    def reference_date(self) -> dt.date:
        """At which ages were taken where there is no sample date."""
        return dt.date.fromisoformat(self.options["reference_date"])

    def auc(self, seed: int) -> Estimate:
        """Of the bundle on these patients, with its 95% interval by bootstrap."""
        of = Predictions(self.labels, self.probability, self.probability >= 0.5)
        return estimate(FIGURES["auc"], [of], resamples(self.labels, seed, by_class=False))


def read_local(folder: Path, bundle: Bundle) -> Local:
    """Read a validation.

    Args:
        folder: where `python -m train validate` wrote.
        bundle: that was validated.

    Raises:
        UsageError: it is no whole validation of this bundle, was edited or written by an earlier version, or its
            patients are those that the bundle was trained on or adapted to, or of one class.
    """
    record = _record(folder)
    if record.get("bundle") != bundle.bundle_id:
        raise UsageError(
            f"{folder}: is a validation of bundle {str(record.get('bundle'))[:12]}, not of {bundle.short_id}. "
            "Validate the bundle that is to be adapted"
        )
    try:
        return _read(folder, record, bundle)
    except UsageError:
        raise
    except (OSError, LookupError, ValueError, TypeError, LymphoError) as error:
        raise UsageError(
            f"{folder}: is incomplete, was edited, or was written by another version of this program ({error}). "
            "Validate the bundle again"
        ) from error


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict):
        raise UsageError(f"{folder}: holds no finished validation ({RECORD}). Run `python -m train validate` first")
    return record


def _read(folder: Path, record: dict[str, Any], bundle: Bundle) -> Local:
    run = json.loads((folder / SCORED / RUN).read_text(encoding="utf-8"))
    if (run["bundle"]["id"], run["cohort"]["table_sha256"]) != (bundle.bundle_id, record["table_sha256"]):
        raise ValueError(f"{SCORED} is another run than {RECORD} describes")
    try:
        read_header(folder / SCORED / KEPT)
    except UsageError as error:  # its remedy is another one
        raise ValueError(f"{SCORED}/{KEPT} is missing, or of another version") from error
    results = {one.patient_id: one for one in read_results(folder / SCORED / KEPT, run["cohort"]["patients"])}
    table = pd.read_csv(folder / PATIENTS, dtype=str, keep_default_na=False)
    if missing := NEEDED - set(table):
        raise ValueError(f"{PATIENTS} has no column {', '.join(sorted(missing))}")
    scored = table[[results[patient].scores is not None for patient in table["patient_id"]]]
    if len(scored) != record["patients"]:
        raise ValueError(f"{PATIENTS} has {len(scored)} scored patients, {RECORD} {record['patients']}")
    known = scored["trained_on"].str.startswith("1")
    if record["table_of_training"] or known.all():
        raise UsageError(
            f"{folder}: its patients are those that the bundle was trained on or adapted to. Validate it on others"
        )
    kept = scored[~known]
    labels = np.array([int(label) for label in kept["label"]], np.int64)
    if len(np.unique(labels)) < 2:
        raise UsageError(f"{folder}: has patients of one class only. Validate the bundle on patients of both")
    of_kept = [results[patient] for patient in kept["patient_id"]]
    scores = [one.scores for one in of_kept if one.scores]
    return Local(
        labels=labels,
        probability=np.array([one.probability for one in scores]),
        alone=np.array([_alone(one) for one in scores]),
        held_up=np.array([bool(one.unusual_pictures) for one in of_kept]),
        disagree=np.array([one.disagree for one in scores], np.bool_),
        measures=_measures(of_kept),
        sizes=_sizes(of_kept),
        left_out=int(known.sum()),
        told=bool((scored["trained_on"] != "").all()),
        table_sha256=record["table_sha256"],
        seen=record["pictures"],
        options=run["options"],
        precision=run["device"]["precision"],
    )


def _alone(scores: Scores) -> float:
    if scores.clinical is None:
        raise ValueError("what sex, age and count alone say is missing")
    return scores.clinical


def _measures(results: list[PatientResult]) -> dict[str, Floats]:
    names = set(results[0].measures).intersection(*(one.measures for one in results))
    return {name: np.array([one.measures[name] for one in results]) for name in sorted(names)}


def _sizes(results: list[PatientResult]) -> tuple[tuple[int, int], ...]:
    """Those that USUAL_SHARE of the patients have: a single odd file must not widen what is known."""
    having = Counter(size for one in results for size in one.unusual_sizes)
    pairs = (size.split(" x ") for size, number in sorted(having.items()) if number >= USUAL_SHARE * len(results))
    return tuple((int(width), int(height)) for width, height in pairs)
