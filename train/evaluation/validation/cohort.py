"""Who the patients of a validation are: flow and characteristics, beside the patients a bundle was made on."""

from collections.abc import Sequence

import numpy as np

from infer.bundle.manifest import Manifest
from infer.bundle.reference import LEVELS
from train.core.arrays import Booleans, Floats
from train.evaluation.validation.scored import Scored

Rows = list[list[str]]
MIDDLE = LEVELS.index(0.51)  # the training patients' median, within 1%


def flow(scored: Scored) -> Rows:
    """Patients at each step, from the table to the figures."""
    lost = len(scored.not_scored)
    labelled = len(scored.labels) + lost
    return [
        ["In the table", str(labelled + scored.without_label)],
        ["Without a diagnosis (LABEL -1)", str(scored.without_label)],
        ["With a diagnosis", str(labelled)],
        ["Refused or failed in scoring", f"{lost} ({sum(one.label for one in scored.not_scored)} malignant)"],
        ["In the figures", f"{len(scored.labels)} ({int(scored.labels.sum())} malignant)"],
    ]


def characteristics(scored: Scored, manifest: Manifest) -> Rows:
    """Title, reactive patients, malignant patients, all, the patients that the bundle compares with."""
    sex, count, age = scored.clinical.T
    known = manifest.reference.measures

    def medians(values: Floats, digits: int) -> list[str]:
        return [_median(values[some], digits) for some in _groups(scored)]

    def of_training(name: str, digits: int) -> str:
        return f"{known[name][MIDDLE]:.{digits}f}" if name in known else "not told"

    women = f"{np.mean(known['sex']):.0%}" if "sex" in known else "not told"
    return [
        ["Patients", *[str(int(some.sum())) for some in _groups(scored)], str(manifest.reference.patients)],
        ["Malignant", "0%", "100%", f"{scored.labels.mean():.0%}", f"{_malignant(manifest):.0%}"],
        ["Women", *[f"{sex[some].mean():.0%}" if some.any() else "" for some in _groups(scored)], women],
        ["Age in years", *medians(age, 0), of_training("age_years", 0)],
        ["Lymphocytes in 10^9/L", *medians(count, 1), of_training("lymph_count", 1)],
        ["Pictures used", *medians(scored.pictures, 0), of_training("pictures", 0)],
    ]


def _malignant(manifest: Manifest) -> float:
    """The share among the patients that the bundle compares with."""
    made, trained = manifest.adapted, manifest.provenance.data_summary
    if made and made.reference:
        return made.malignant / made.patients
    return trained["malignant"] / trained["patients"]


def _groups(scored: Scored) -> Sequence[Booleans]:
    everybody = np.ones(len(scored.labels), np.bool_)
    return scored.labels == 0, scored.labels == 1, everybody


def _median(values: Floats, digits: int) -> str:
    """Median and range."""
    if not len(values):
        return ""
    return f"{np.median(values):.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})"
