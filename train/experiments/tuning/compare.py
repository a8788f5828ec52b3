"""Compares the ways to adapt the ImageNet network to cells, each on the outer folds of the nested protocol.

Everything is fitted on a fold's training patients: SimCLR and k-means see no picture of a held-out patient.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from train.core.files import write_table
from train.data.bags import Bags
from train.evaluation.nested.plan import Outer, outer_folds
from train.experiments.tuning.recipe import RECIPE, OutOfTimeError, TuningRecipe
from train.experiments.tuning.table import figures
from train.experiments.tuning.ways import Setting, Way, all_ways

LOG = logging.getLogger("lympho")


def compare(setting: Setting, recipe: TuningRecipe = RECIPE) -> pd.DataFrame:
    """The table of the ways that are finished, also in RUN/tuning/tuning.csv.

    RUN/tuning/predictions.csv has the held-out patients' probabilities. Both are written after each way. What an
    earlier call has predicted is not trained again. When the minutes are used up, the rest is left to the next call.
    """
    folder = setting.run / "tuning"
    (folder / "folds").mkdir(parents=True, exist_ok=True)
    found: list[pd.DataFrame] = []
    table = pd.DataFrame()
    try:
        for way in all_ways(setting, recipe):
            for predictions in _of_way(setting, way, folder / "folds"):
                found.append(predictions)
                write_table(folder / "predictions.csv", pd.concat(found))
            table = figures(setting.bags, pd.concat(found), setting.seed)
            write_table(folder / "tuning.csv", table)
            LOG.info("tuning: %s is done", way.name)
    except OutOfTimeError as error:
        done = len({(part["way"].iloc[0], part["fold"].iloc[0]) for part in found})
        LOG.warning("tuning: stopped, %s. %d trainings are finished; the same command goes on from there", error, done)
    return table


def _of_way(setting: Setting, way: Way, folder: Path) -> Iterator[pd.DataFrame]:
    """Predictions of a way for the held-out patients of each fold, from the file of an earlier call if there is one."""
    for fold in outer_folds(setting.bags.labels, setting.seed, 1, setting.bags.centres):
        path = folder / f"{way.name.replace(' ', '-')}-{fold.number}-{_key(setting, way, fold)}.csv"
        if not path.exists():
            setting.clock.check()
            write_table(path, _predicted(setting.bags, way, fold, path.with_suffix(".safetensors")))
        yield pd.read_csv(path, dtype={"patient_id": str}, keep_default_na=False)


def _predicted(bags: Bags, way: Way, fold: Outer, checkpoint: Path) -> pd.DataFrame:
    judged = way.judged(fold, checkpoint)
    ids = [bags.patient_ids[index] for index in fold.held_out]
    facts = {"way": way.name, "fold": fold.number, "seconds": round(judged.seconds, 1), "patient_id": ids}
    LOG.info("tuning: %s, fold %d: trained for %.1f s", way.name, fold.number, judged.seconds)
    return pd.concat([pd.DataFrame({**facts, "judge": judge, **columns}) for judge, columns in judged.by.items()])


def _key(setting: Setting, way: Way, fold: Outer) -> str:
    """Hash of everything the predictions depend on, except the code."""
    training = [setting.bags.patient_ids[index] for index in fold.training]
    facts = {"facts": way.facts, "seed": setting.seed, "data": setting.bags.facts, "training": training}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
