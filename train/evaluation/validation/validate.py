"""Validates a bundle on a labelled cohort and writes what was found: HTML, CSV, JSON.

OUT/validation.html, validation.json, performance.csv, differences.csv, operating_points.csv, calibration.csv,
decision_curve.csv, patients.csv, and OUT/scored with the run itself. They hold patients' IDs and labels.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from infer import __version__
from infer.bundle.load import Bundle
from infer.errors import UsageError
from infer.options import Options
from train.core.arrays import Booleans
from train.core.files import write_table, write_text
from train.evaluation.validation.cohort import characteristics, flow
from train.evaluation.validation.figures import Figures, figures_of
from train.evaluation.validation.page import Who, render
from train.evaluation.validation.said import Said, say
from train.evaluation.validation.scored import SCORED, Scored, score_labelled
from train.evaluation.validation.swapped import score_swapped

PAGE, RECORD, PATIENTS = "validation.html", "validation.json", "patients.csv"


def validate(
    bundle: Bundle, options: Options, seed: int = 0, prevalences: Sequence[float] = (), *, swap: bool = False
) -> Said:
    """Score, judge, write.

    Args:
        bundle: at options.bundle.
        options: of the run; `out` gets everything.
        prevalences: as for `figures_of`.
        swap: also score everybody by another patient's pictures.

    Raises:
        UsageError: OUT holds something else than an earlier validation.
        LymphoError: as `score_labelled`.
    """
    _check_out(options.out)
    for name in (PAGE, RECORD):  # of an earlier validation, which this one replaces: they must not stand beside its run
        (options.out / name).unlink(missing_ok=True)
    scored = score_labelled(bundle, options)
    swapped = score_swapped(options, scored) if swap else None
    figures = figures_of(scored, bundle.manifest, seed, prevalences, swapped)
    said = say(scored, figures)
    facts = _facts(bundle, options, scored, seed)
    tables = {
        "performance": figures.performance,
        "differences": figures.differences,
        "operating_points": figures.points,
        "calibration": figures.calibration,
        "decision_curve": figures.decision_curve,
    }
    for name, table in tables.items():
        write_table(options.out / f"{name}.csv", table)
    write_table(options.out / PATIENTS, _patients(scored))
    write_text(options.out / RECORD, json.dumps(_record(bundle, scored, figures, said, facts), indent=1))
    who = Who(flow(scored), characteristics(scored, bundle.manifest))
    write_text(options.out / PAGE, render(said, figures, facts, who))  # last: it stands for the rest
    return said


def _check_out(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / SCORED).is_dir():
        raise UsageError(f"{out}: holds something else than a validation. Choose an empty or a new folder")


def _facts(bundle: Bundle, options: Options, scored: Scored, seed: int) -> list[tuple[str, str]]:
    malignant = int(scored.labels.sum())
    date = options.reference_date
    return [
        ("Bundle", bundle.bundle_id),
        ("Program", f"lympho {__version__}"),
        ("Patients", f"{len(scored.labels)}, {malignant} of them malignant ({malignant / len(scored.labels):.0%})"),
        ("Ages taken at", date.isoformat() if date else "SAMPLE_DATE"),
        ("Outcome", "LABEL of the table: 1 malignant, 0 reactive"),
        ("Fitted on these patients", "nothing of the bundle; sex, age and count alone by cross-validation"),
        ("Random seed", str(seed)),
    ]


def _patients(scored: Scored) -> pd.DataFrame:
    rows = {
        "patient_id": scored.patient_ids,
        "label": scored.labels,
        "probability": scored.probability,
        "held_up": scored.held_up.astype(np.int64),
        "disagree": scored.disagree.astype(np.int64),
        "trained_on": _told(scored.known, len(scored.labels)),
    }
    lost = [{"patient_id": one.patient_id, "label": one.label, "reason": one.code} for one in scored.not_scored]
    return pd.concat([pd.DataFrame(rows), pd.DataFrame(lost, columns=["patient_id", "label", "reason"])])


def _told(known: Booleans | None, patients: int) -> list[int | str]:
    """1 or 0 a patient; nothing where the bundle does not tell."""
    return [""] * patients if known is None else known.astype(int).tolist()


def _record(
    bundle: Bundle, scored: Scored, figures: Figures, said: Said, facts: list[tuple[str, str]]
) -> dict[str, object]:
    known = None if scored.known is None else int(scored.known.sum())
    return {
        "kind": said.kind,
        "sentences": [said.whose, *said.sentences],
        "facts": dict(facts),
        "bundle": bundle.bundle_id,
        "table_of_training": scored.same_table,
        "patients": len(scored.labels),
        "malignant": int(scored.labels.sum()),
        "patients_trained_on": known,
        "unlike_training": int(scored.held_up.sum()),
        "disagreeing": int(scored.disagree.sum()),
        "not_scored": [one.code for one in scored.not_scored],
        "without_label": scored.without_label,
        "patients_needed": figures.needed,
        "table_sha256": scored.table_sha256,
        "pictures": scored.seen,
        "performance": figures.performance.to_dict("records"),
        "differences": figures.differences.to_dict("records"),
        "operating_points": figures.points.to_dict("records"),
    }
