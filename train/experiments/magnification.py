"""How much of a cell the frozen backbone should see, and how large: crops and input sizes compared.

One model for all, with nothing to choose: `fit_fixed` on sex, age, the piecewise-linear count and a patient's mean
features, repeatedly cross-validated. A magnification selected by its results was selected on the same patients as later
results are reported on.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from train.core.arrays import Booleans, Floats, Labels
from train.core.files import write_table
from train.core.metrics import GREY_ZONE_COUNT
from train.core.performance import FIGURES, Figure, Predictions, estimate, resamples
from train.data.bags import Bags
from train.data.inputs import bent_features
from train.data.whose_pictures import COLUMNS, OWN, by_pictures
from train.evaluation.nested.plan import outer_folds
from train.members.embedding import Magnification
from train.members.features import embed_pictures
from train.members.linear import fit_fixed

LOG = logging.getLogger("lympho")

MAGNIFICATIONS = tuple(
    Magnification(crop, size)
    for crop, size in ((112, 112), (112, 160), (112, 224), (112, 320), (64, 224), (80, 224), (96, 224))
)
REPEATS = 5
NO_PICTURES = "none: sex, age and count alone"


def compare(
    bags: Bags,
    run: Path,
    seed: int,
    device: torch.device,
    magnifications: Sequence[Magnification] = MAGNIFICATIONS,
) -> pd.DataFrame:
    """The table, also in RUN/magnification/magnification.csv.

    Columns: magnification; pictures (own, or swapped and blank, train/data/whose_pictures.py); figure (auc and
    balanced_accuracy at .5, and auc in the grey zone); value, the mean over REPEATS times five folds, everything fitted
    on the other four; low and high, by patient bootstrap.

    Args:
        bags: all patients.
        run: the run folder.
        seed: random seed of folds and bootstrap.
        device: device for the backbone.
        magnifications: what to compare.
    """
    clinical = bent_features(torch.from_numpy(bags.clinical.astype(np.float64))).numpy()
    nothing = np.empty((len(bags) + 1, 0))
    rows = _rows(NO_PICTURES, bags, {OWN: cross_validated(bags, clinical, nothing, seed)[OWN]}, seed)
    for one in magnifications:
        means = embed_pictures(bags, run, device, one).means(bags)
        name = f"{one.crop} -> {one.size}"
        rows += _rows(name, bags, cross_validated(bags, clinical, means, seed), seed)
        LOG.info("magnification: %s is done", name)
    table = pd.DataFrame(rows)
    (run / "magnification").mkdir(exist_ok=True)
    write_table(run / "magnification" / "magnification.csv", table)
    return table


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row per magnification, one column per figure and kind of pictures, with the interval of the own ones."""
    rows: dict[str, dict[str, str]] = {}
    for row in table.itertuples():
        interval = f" [{row.low:.3f}, {row.high:.3f}]" if row.pictures == "own" else ""
        cells = rows.setdefault(str(row.magnification), {})
        cells[f"{row.figure}, {row.pictures}"] = f"{row.value:.3f}{interval}"
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


def cross_validated(bags: Bags, clinical: Floats, means: Floats, seed: int) -> dict[str, Floats]:
    """Probabilities of held-out patients for each of COLUMNS: (REPEATS, P).

    Args:
        bags: all patients.
        clinical: (P, 4) clinical features.
        means: (P + 1, F) mean features of each patient's pictures, the last row those of a blank one.
        seed: random seed of the folds.
    """
    found = {column: np.empty((REPEATS, len(bags))) for column in COLUMNS}
    for fold in outer_folds(bags.labels, seed, REPEATS, bags.centres):
        known = np.concatenate([clinical[fold.training], means[fold.training]], axis=1)
        model = fit_fixed(known, bags.labels[fold.training], means.shape[1])
        asked = clinical[fold.held_out]
        judged = by_pictures(
            fold.held_out,
            bags.patient_ids,
            lambda shown: model.predict_proba(np.concatenate([asked, means[shown]], axis=1))[:, 1],  # noqa: B023
        )
        for column, probability in judged.items():
            found[column][fold.repeat, fold.held_out] = probability
    return found


@dataclass(frozen=True)
class Asked:
    """A figure, the patients it is asked of, and its bootstrap resamples."""

    figure: Figure
    labels: Labels  # (P,) of all patients
    chosen: Booleans  # (P,) patients it is asked of
    weights: Floats  # (B, chosen)

    def of(self, repeats: Iterable[Floats]) -> list[Predictions]:
        """Probabilities of all patients, (P,) for each repeat, as predictions for those asked of; threshold .5."""
        return [Predictions(self.labels, one, one >= 0.5).of(self.chosen) for one in repeats]


def three_figures(bags: Bags, seed: int) -> dict[str, Asked]:
    """AUC, AUC in the grey zone, balanced accuracy at .5."""
    grey = bags.clinical[:, 1] <= GREY_ZONE_COUNT
    weights = resamples(bags.labels, seed)
    everybody = np.ones_like(grey)
    return {
        "auc": Asked(FIGURES["auc"], bags.labels, everybody, weights),
        "grey_zone_auc": Asked(FIGURES["auc"], bags.labels, grey, weights[:, grey]),
        "balanced_accuracy": Asked(FIGURES["balanced_accuracy"], bags.labels, everybody, weights),
    }


def _rows(name: str, bags: Bags, found: dict[str, Floats], seed: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for column, repeats in found.items():
        for title, asked in three_figures(bags, seed).items():
            one = estimate(asked.figure, asked.of(repeats), asked.weights)
            pictures = "own" if column == OWN else column
            facts = {"magnification": name, "pictures": pictures, "figure": title}
            rows.append({**facts, "value": one.value, "low": one.low, "high": one.high})
    return rows
