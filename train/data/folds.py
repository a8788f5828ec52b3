"""Assigns patients to cross-validation folds."""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from infer.errors import UsageError
from train.data.bags import Bags
from train.data.centres import strata, stratified_by

LOG = logging.getLogger("lympho")

FOLDS = 5


def assign_folds(bags: Bags, run: Path, seed: int) -> npt.NDArray[np.int64]:
    """The fold (0 to 4) in which each patient is held out, the same for every member.

    Stratified by class, and by centre where the patients have one. It is stored in RUN/folds.csv.

    Returns:
        (P,) fold of each patient.

    Raises:
        UsageError: RUN/folds.csv lists other patients.
    """
    path = run / "folds.csv"
    if path.exists():
        table = pd.read_csv(path, dtype={"patient_id": str}, keep_default_na=False)
        if table["patient_id"].tolist() != bags.patient_ids:
            raise UsageError(f"{path}: lists other patients than the crops. Choose another run folder")
        return table["fold"].to_numpy(np.int64)
    if bags.centres is not None:
        LOG.info("folds: %s", stratified_by(bags.labels, bags.centres, FOLDS))
    folds = np.empty(len(bags), dtype=np.int64)
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(bags.clinical, strata(bags.labels, bags.centres, FOLDS))):
        folds[held_out] = fold
    pd.DataFrame({"patient_id": bags.patient_ids, "fold": folds}).to_csv(path, index=False)
    return folds
