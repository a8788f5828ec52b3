"""The manifest's section on the training patients: quantiles of what scoring measures, and sex, age and count alone.

Probabilities and decisions are out of fold, as new patients' are. Class shares are those of the model that ships, which
has seen these pictures, but no label. Pictures without a cell, which scoring rejects, are among them: 1 in 200.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from export.appearance import make_appearance
from export.members.member import MemberExport
from export.usual import LIMIT, make_usual, rounded
from infer.bundle.appearance import Appearance
from infer.bundle.reference import LABELS, LEVELS, ClinicalAlone, Reference, Spread
from train.core.arrays import Floats, Labels
from train.core.threads import on_one_thread
from train.data.appearance import of_cells
from train.data.bags import Bags
from train.data.measures import of_patients, of_pictures
from train.data.seen import packed
from train.evaluation.nested.leads import clinical_features
from train.members.linear import affine, plain_logistic

MIDDLE = (0.1, 0.5, 0.9)


def make_reference(run: Path, bags: Bags, members: Sequence[MemberExport]) -> Reference:
    """What is usual in a run's training patients."""
    of_members = {name: values for member in members for name, values in member.measures(run, bags).items()}
    found = {**of_patients(bags), **of_pictures(bags), **of_members, "probability": _out_of_fold(run, bags)}
    seen = packed(bags.crops.numpy(), bags.facts["table_sha256"])
    looks = _appearance(run, bags, members)
    return reference_of(found, of_members, bags.labels, fit_clinical(bags), seen, looks)


def reference_of(
    found: Mapping[str, Floats],
    of_members: Mapping[str, Floats],
    labels: Labels,
    clinical: ClinicalAlone,
    seen: str,
    appearance: Appearance | None,
    limit: float = LIMIT,
) -> Reference:
    """The section on some patients.

    Args:
        found: (P,) of each measure, `probability` among them.
        of_members: those of them that members measure.
        labels: (P,) 1 malignant, 0 reactive.
        clinical: what sex, age and count alone say.
        seen: digests of the training pictures.
        appearance: of the classes of cells in the training pictures.
        limit: as for `make_usual`.
    """
    return Reference(
        patients=len(labels),
        measures={
            name: [rounded(value) for value in np.quantile(values, LEVELS)] for name, values in sorted(found.items())
        },
        by_label={name: _spreads(of_members, labels == label) for label, name in enumerate(LABELS)},
        clinical=clinical,
        usual=make_usual(found, limit),
        seen=seen,
        appearance=appearance,
    )


@on_one_thread
def fit_clinical(bags: Bags) -> ClinicalAlone:
    """The evaluation's clinical logistic, fitted on all training patients."""
    features = clinical_features(bags)  # sex, log count - 2, (age - 60) / 10
    weights, intercept = affine(plain_logistic().fit(features, bags.labels), features.shape[1])
    female, log_count, age = weights.tolist()
    return ClinicalAlone(female, log_count, age / 10, intercept - 2 * log_count - 6 * age)


def _appearance(run: Path, bags: Bags, members: Sequence[MemberExport]) -> Appearance | None:
    """Of the classes of the member that has some."""
    for member in members:
        classes = member.picture_classes(run)
        if classes is not None:
            return make_appearance(of_cells(bags), classes, bags.patient_of_image())
    return None


def _out_of_fold(run: Path, bags: Bags) -> Floats:
    table = pd.read_csv(run / "ensemble/out_of_fold.csv", dtype={"patient_id": str}, keep_default_na=False)
    return np.asarray(table.set_index("patient_id")["probability"].loc[bags.patient_ids], np.float64)


def _spreads(measures: Mapping[str, Floats], chosen: np.ndarray) -> dict[str, Spread]:
    return {name: Spread(*map(rounded, np.quantile(values[chosen], MIDDLE))) for name, values in measures.items()}
