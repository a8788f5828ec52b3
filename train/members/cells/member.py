"""The member: cell classes on the backbone, and Gaussian naive Bayes on a patient's class shares.

Inductive: the classes of the model that scores a patient were learnt without the patient's pictures.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from infer.errors import UsageError
from infer.members.naive_bayes import NaiveBayes, malignant_probability
from train.core.arrays import Classes, Floats, Indices
from train.core.checkpoint import save_network
from train.core.files import write_table, write_text
from train.core.fitting import TrainingError
from train.data.bags import Bags
from train.data.whose_pictures import COLUMNS, by_pictures
from train.members.absent import write_notes
from train.members.candidate import Candidate
from train.members.cells.clustering import CellClasses, train_cells
from train.members.cells.network import load_cells
from train.members.embedding import weights_digest
from train.members.features import Features, embed_pictures
from train.members.imagenet import MAGNIFICATION
from train.members.naive_bayes import fit_naive_bayes, patient_features
from train.members.out_of_fold import ALL_OF_FOLD
from train.members.recipes import Recipe
from train.members.scan.neighbours import nearest, own_patient_share
from train.members.training import NUMBERS, MemberJob, MemberTraining, NestedJob, as_text
from train.progress.report import steps

FOLDER = "cells"
FIRST_OF_PICTURES = 3  # of the features; before it are sex, count and age


def train(job: MemberJob) -> None:
    """Train what is missing in RUN/cells: out_of_fold.csv, full.safetensors, fusion.json, naive_bayes.json.

    `pictures_only` comes from the same features without sex, count and age. classes.csv has the class of every picture,
    by the network trained on all; neighbours.json says how often a cell's neighbours come from its own patient;
    notes.json, if it is there, where k-means took SCAN's place.

    Raises:
        Collapse: no classes are found in one of the trainings.
    """
    folder, bags = job.run / FOLDER, job.bags
    folder.mkdir(parents=True, exist_ok=True)
    mine = as_text(numbers(job.recipe, job.seed))
    made = [folder / name for name in ("out_of_fold.csv", NUMBERS, "classes.csv")]
    if all(path.exists() for path in [*made, *files(job.run)]) and made[1].read_text() == mine:
        return
    seen = embed_pictures(bags, job.run, job.device, MAGNIFICATION)
    probability, pictures_only = np.empty(len(bags)), np.empty(len(bags))
    collapsed = {}
    for fold in steps(np.unique(job.folds).tolist(), "training", more=ALL_OF_FOLD):
        training, asked = np.flatnonzero(job.folds != fold), np.flatnonzero(job.folds == fold)
        classes, collapsed[f"without fold {fold}"] = _classes(bags, seen, training, job.recipe, job.seed)
        base = patient_features(bags, classes)
        for result, first in ((probability, 0), (pictures_only, FIRST_OF_PICTURES)):
            known = base[training, first:]
            model = fit_naive_bayes(known, bags.labels[training], job.recipe.bayes, has_count=first == 0)
            result[asked] = malignant_probability(base[asked, first:], model)
    cells = train_cells(seen.pictures, bags.patient_of_image(), job.recipe.cells, job.seed)
    collapsed["on all patients"] = cells.collapsed
    classes = cells.of(seen.pictures)
    bayes = fit_naive_bayes(patient_features(bags, classes), bags.labels, job.recipe.bayes)
    save_network(folder / "full.safetensors", cells.network, cells.network.dimensions)
    write_text(folder / "fusion.json", json.dumps(cells.fusion.tolist()))
    write_text(folder / "naive_bayes.json", msgspec.json.format(msgspec.json.encode(bayes)).decode())
    _describe(bags, seen, cells, classes, job)
    facts = {"patient_id": bags.patient_ids, "fold": job.folds, "label": bags.labels}
    table = pd.DataFrame({**facts, "probability": probability, "pictures_only": pictures_only})
    write_table(folder / "out_of_fold.csv", table)
    write_notes(folder, _notes(collapsed))
    write_text(folder / NUMBERS, mine)


def _notes(collapsed: Mapping[str, str]) -> list[str]:
    """A sentence on where k-means took SCAN's place: by training, why, or nothing."""
    reasons = {training: why for training, why in collapsed.items() if why}
    if not reasons:
        return []
    return [
        f"SCAN's classes of cells could not be learnt in {len(reasons)} of {len(collapsed)} trainings, and k-means on "
        f"the same features took their place ({'; '.join(f'{name}: {why}' for name, why in reasons.items())})."
    ]


def _classes(bags: Bags, seen: Features, training: Indices, recipe: Recipe, seed: int) -> tuple[Classes, str]:
    """Classes of all pictures and last of a blank one (N + 1,), learnt from the training patients' pictures.

    And why k-means took SCAN's place, if it did.
    """
    owner = bags.patient_of_image()
    known = np.isin(owner, training)
    cells = train_cells(seen.pictures[known], owner[known], recipe.cells, seed)
    return cells.of(np.concatenate([seen.pictures, seen.blank[None]])), cells.collapsed


def _describe(bags: Bags, seen: Features, cells: CellClasses, classes: Classes, job: MemberJob) -> None:
    owner = bags.patient_of_image()
    columns = {
        "patient_id": [bags.patient_ids[index] for index in owner],
        "image": bags.image_names,
        "cell_class": classes,
    }
    write_table(job.run / FOLDER / "classes.csv", pd.DataFrame(columns))
    embedding = cells.network.embed(seen.pictures)
    own, chance = own_patient_share(nearest(embedding, min(job.recipe.cells.neighbours, len(owner) - 1)), owner)
    facts = {"own_patient_share": own, "own_patient_share_by_chance": chance}
    write_text(job.run / FOLDER / "neighbours.json", json.dumps(facts, indent=1))


def load(run: Path) -> tuple[CellClasses, NaiveBayes]:
    """The classes and the naive Bayes trained on all patients.

    Raises:
        UsageError: they have not been trained in this run folder.
    """
    missing = [path for path in files(run) if not path.exists()]
    if missing:
        raise UsageError(f"{missing[0]}: is missing. Run `python -m train cells` first")
    network, fusion, bayes, _ = files(run)
    cells = CellClasses(load_cells(network), np.array(json.loads(fusion.read_text())))
    return cells, msgspec.json.decode(bayes.read_bytes(), type=NaiveBayes)


def files(run: Path) -> list[Path]:
    """What export reads: network, fusion, naive Bayes, numbers."""
    return [run / FOLDER / name for name in ("full.safetensors", "fusion.json", "naive_bayes.json", NUMBERS)]


def numbers(recipe: Recipe, seed: int) -> dict[str, object]:
    """Everything the member depends on, apart from the data."""
    return {
        "weights_sha256": weights_digest(),
        "magnification": asdict(MAGNIFICATION),
        "cells": asdict(recipe.cells),
        "bayes": asdict(recipe.bayes),
        "naive_bayes": "count floored",
        "seed": seed,
    }


def candidate(job: NestedJob) -> Candidate:
    """This member for the nested protocol.

    Where no classes are found it says the same of everybody, so that a fold does not end the evaluation.
    """
    bags = job.bags
    seen = embed_pictures(bags, job.run, job.device, MAGNIFICATION)

    def predicted(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        del checkpoint
        try:
            classes, _ = _classes(bags, seen, training, job.recipe, job.seed)
        except TrainingError:
            return dict.fromkeys(COLUMNS, np.full(len(asked), bags.labels[training].mean()))
        model = fit_naive_bayes(patient_features(bags, classes, training), bags.labels[training], job.recipe.bayes)

        def judge(shown: Indices) -> Floats:
            return malignant_probability(patient_features(bags, classes, asked, shown), model)

        return by_pictures(asked, bags.patient_ids, judge)

    return Candidate("scan", {**numbers(job.recipe, job.seed), "columns": COLUMNS}, predicted)


TRAINING = MemberTraining(
    "scan",
    FOLDER,
    "cells",
    "Learn cell classes on the frozen backbone, with naive Bayes on them: once per fold (5) and once on all patients.",
    train,
    files,
    candidate,
    numbers,
)
