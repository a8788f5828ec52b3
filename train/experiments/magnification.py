"""How much of a cell the frozen backbone should see, and how large: crops and input sizes compared.

One model for all, with nothing to choose: `fit_fixed` on sex, age, the piecewise-linear count and a patient's mean
features, repeatedly cross-validated. A magnification selected by its results was selected on the same patients as later
results are reported on.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from train.core.arrays import Booleans, Floats
from train.core.files import write_table
from train.core.metrics import GREY_ZONE_COUNT
from train.data.bags import Bags
from train.data.inputs import bent_features
from train.data.sights import SIGHTS, sights
from train.evaluation.nested.plan import outer_folds
from train.members.embedding import FEATURES, Magnification
from train.members.features import embed_pictures
from train.members.linear import fit_fixed

LOG = logging.getLogger("lympho")

MAGNIFICATIONS = tuple(
    Magnification(crop, size)
    for crop, size in ((112, 112), (112, 160), (112, 224), (112, 320), (64, 224), (80, 224), (96, 224))
)
REPEATS = 5


def compare(
    bags: Bags,
    run: Path,
    seed: int,
    device: torch.device,
    magnifications: Sequence[Magnification] = MAGNIFICATIONS,
) -> pd.DataFrame:
    """The table, one row per magnification; also in RUN/magnification/magnification.csv.

    Columns: crop and size in pixels; seconds for all pictures (on this machine; 0 if an earlier call computed them);
    auc, grey_zone_auc and balanced_accuracy (threshold .5), mean over REPEATS times five folds, everything fitted on
    the other four; and the same by swapped and by blank pictures (train/data/sights.py), with the sight as ending.

    Args:
        bags: all patients.
        run: the run folder.
        seed: random seed of the folds.
        device: device for the backbone.
        magnifications: what to compare.
    """
    clinical = bent_features(torch.from_numpy(bags.clinical.astype(np.float64))).numpy()
    rows = []
    for one in magnifications:
        start = time.perf_counter()
        means = embed_pictures(bags, run, device, one).means(bags)
        seconds = round(time.perf_counter() - start)
        found = _figures(bags, cross_validated(bags, clinical, means, seed))
        LOG.info("magnification: crop %d, size %d: AUC %.3f", one.crop, one.size, found["auc"])
        rows.append({"crop": one.crop, "size": one.size, "seconds": seconds, **found})
    table = pd.DataFrame(rows)
    (run / "magnification").mkdir(exist_ok=True)
    write_table(run / "magnification" / "magnification.csv", table)
    return table


def cross_validated(bags: Bags, clinical: Floats, means: Floats, seed: int) -> dict[str, Floats]:
    """Probabilities of held-out patients for each of SIGHTS: (REPEATS, P).

    Args:
        bags: all patients.
        clinical: (P, 4) clinical features.
        means: (P + 1, 1280) mean features of each patient's pictures, the last row those of a blank one.
        seed: random seed of the folds.
    """
    found = {column: np.empty((REPEATS, len(bags))) for column in SIGHTS}
    for fold in outer_folds(bags.labels, seed, REPEATS):
        known = np.concatenate([clinical[fold.training], means[fold.training]], axis=1)
        model = fit_fixed(known, bags.labels[fold.training], FEATURES)
        for column, shown in sights(fold.held_out, bags.patient_ids).items():
            asked = np.concatenate([clinical[fold.held_out], means[shown]], axis=1)
            found[column][fold.repeat, fold.held_out] = model.predict_proba(asked)[:, 1]
    return found


def _figures(bags: Bags, found: dict[str, Floats]) -> dict[str, float]:
    grey: Booleans = bags.clinical[:, 1] <= GREY_ZONE_COUNT
    result = {}
    for column, repeats in found.items():
        ending = "" if column == SIGHTS[0] else f"_{column}"
        result[f"auc{ending}"] = float(np.mean([roc_auc_score(bags.labels, one) for one in repeats]))
        in_zone = [roc_auc_score(bags.labels[grey], one[grey]) for one in repeats]
        result[f"grey_zone_auc{ending}"] = float(np.mean(in_zone))
        accuracies = [balanced_accuracy_score(bags.labels, one >= 0.5) for one in repeats]
        result[f"balanced_accuracy{ending}"] = float(np.mean(accuracies))
    return result
