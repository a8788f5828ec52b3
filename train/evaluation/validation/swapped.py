"""The blind twin of a validation: the same patients, each scored by the pictures of another one.

A bundle that ranks them as well this way sees nothing in these pictures, whatever its AUC.
"""

import dataclasses

import numpy as np
import pandas as pd

from infer.cohort.patients import TABLE
from infer.errors import CohortError
from infer.options import Options
from infer.output.kept import KEPT, read_results
from infer.run import run
from train.core.arrays import Floats
from train.core.files import write_table
from train.data.whose_pictures import SWAPPED, whose_pictures
from train.evaluation.validation.scored import Scored

FOLDER = "swapped"


def score_swapped(options: Options, scored: Scored) -> Floats:
    """Score everybody by another patient's pictures, into options.out/swapped: (P,) probabilities in `scored`'s order.

    Sex, count and age are the patient's own. Nobody keeps the own pictures, and everybody's are used once.

    Args:
        options: as for the validation; `out` is its folder.

    Raises:
        CohortError: there is one patient only, or one could not be scored this way.
        LymphoError: as `infer.run.run`.
    """
    if len(scored.patient_ids) < 2:
        raise CohortError(f"{options.patients}: one patient only, whose pictures can be exchanged with nobody's")
    folder = options.out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / TABLE, _table(scored))
    run(
        dataclasses.replace(
            options,
            annotations=folder / TABLE,
            out=folder / "scored",
            ood="warn",
            date_format=None,
            sample_date_format=None,
            sex_codes=None,
        )
    )
    results = read_results(folder / "scored" / KEPT, len(scored.patient_ids))
    found = [result.scores and result.scores.probability for result in results]
    if lost := [name for name, one in zip(scored.patient_ids, found, strict=True) if one is None]:
        raise CohortError(
            f"{folder}: {', '.join(lost[:10])} could not be scored by others' pictures; run.json says why"
        )
    return np.array(found, np.float64)


def _table(scored: Scored) -> pd.DataFrame:
    """The patients' own values under the ID of whoever lends the pictures."""
    lenders = whose_pictures(np.arange(len(scored.patient_ids)), scored.patient_ids)[SWAPPED]
    sex, count, age = scored.clinical.T
    return pd.DataFrame(
        {
            "ID": [scored.patient_ids[lender] for lender in lenders],
            "GENDER": np.where(sex == 1, "F", "M"),
            "DOB": "",
            "LYMPH_COUNT": [f"{value:.9g}" for value in count],
            "AGE": [f"{value:.9g}" for value in age],
        }
    )
