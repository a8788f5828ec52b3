"""Patients as a validation sees them, drawn."""

import numpy as np

from train.evaluation.validation.scored import Scored


def drawn(patients: int = 200, skill: float = 2.0, seed: int = 0, clinical_skill: float = 1.0) -> Scored:
    """Probabilities that are calibrated by construction, and a count that tells less."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0.4, skill, patients)
    labels = (rng.random(patients) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    count = np.exp(rng.normal(2 + 0.4 * clinical_skill * labels, 0.5))
    clinical = np.stack([rng.integers(0, 2, patients).astype(float), count, rng.uniform(30, 90, patients)], axis=1)
    return Scored(
        patient_ids=[f"P{index}" for index in range(patients)],
        labels=labels,
        probability=1 / (1 + np.exp(-logit)),
        held_up=np.zeros(patients, np.bool_),
        disagree=np.zeros(patients, np.bool_),
        clinical=clinical,
        pictures=np.full(patients, 30.0),
        not_scored=(),
        without_label=0,
        same_table=False,
        known=np.zeros(patients, np.bool_),
        seen="",
        table_sha256="",
    )
