"""Training learns a signal if there is one, and nothing from random labels: `python -m train` on synthetic patients."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.train_fixtures import (
    COHORT_SEED,
    DATE,
    EPOCHS,
    IMAGES,
    OPTIONS,
    SMALL_BATCHES,
    TrainedRun,
    train,
    with_features,
)
from train.core.curves import decision_rates
from train.core.fitting import Job
from train.data.bags import load_crops
from train.members import baseline, experts, registry
from train.members.features import embed_pictures
from train.members.imagenet import MAGNIFICATION
from train.members.naive_bayes import GIVEN_CLASSES_FOLDER
from train.members.recipes import adapted

FOLDERS = {member.name: member.folder for member in registry.MEMBERS}


def out_of_fold(run: Path, member: str) -> pd.DataFrame:
    return pd.read_csv(
        run / FOLDERS.get(member, member) / "out_of_fold.csv",
        dtype={"patient_id": str},
    )


def auc(table: pd.DataFrame, column: str) -> float:
    return float(roc_auc_score(table["label"], table[column]))


def trained_files(run: Path) -> dict[str, int]:
    """Modification times of all networks, members' files, predictions, histories and features."""
    patterns = ["*/*.safetensors", "*/fold-*.csv", "*/*.history.csv", "crops/*", "folds.csv", "features-*.npy"]
    patterns += ["cells/*", "moe/*", "imagenet/*"]
    return {str(path): path.stat().st_mtime_ns for pattern in patterns for path in run.glob(pattern)}


@pytest.fixture(scope="module")
def own_network(trained_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the same patients with the SCAN that trains a network of its own, small, and naive Bayes."""
    run = tmp_path_factory.mktemp("own") / "run"
    for command in ("scan", "naive-bayes"):
        call = train(command, trained_run.patients, run, *DATE, *OPTIONS, "--backbone", "width-16-half-input")
        assert call.code == 0, call.errors
    return run


@pytest.mark.parametrize("member", registry.names())
def test_each_member_learns_from_pictures_alone(trained_run: TrainedRun, member: str) -> None:
    assert auc(out_of_fold(trained_run.run, member), "pictures_only") > 0.75


def test_scan_with_a_network_of_its_own_learns_from_pictures_alone(own_network: Path) -> None:
    assert auc(out_of_fold(own_network, "naive_bayes"), "pictures_only") > 0.75
    stages = pd.read_csv(own_network / "scan/stages.csv")
    assert stages["classes"].iloc[-1] == pd.read_csv(own_network / "scan/classes.csv")["cell_class"].nunique() > 2


def test_the_ensemble_learns(trained_run: TrainedRun) -> None:
    assert auc(out_of_fold(trained_run.run, "ensemble"), "probability") > 0.85


def test_members_are_tested_on_the_same_folds(trained_run: TrainedRun) -> None:
    tables = [out_of_fold(trained_run.run, member) for member in (*registry.names(), "ensemble")]
    for table in tables[1:]:
        assert table[["patient_id", "fold", "label"]].equals(tables[0][["patient_id", "fold", "label"]])
    assert tables[0].groupby("fold")["label"].mean().std() < 0.05
    assert tables[0]["fold"].tolist() == pd.read_csv(trained_run.run / "folds.csv")["fold"].tolist()


def test_figures_are_those_of_the_predictions(trained_run: TrainedRun) -> None:
    figures = json.loads((trained_run.run / "ensemble/metrics.json").read_text())
    for member in registry.names():
        table = out_of_fold(trained_run.run, member)
        assert figures[member]["auc"] == pytest.approx(auc(table, "probability"))
        assert figures[f"{member}, pictures only"]["auc"] == pytest.approx(auc(table, "pictures_only"))
    assert figures["ensemble"]["auc"] == pytest.approx(auc(out_of_fold(trained_run.run, "ensemble"), "probability"))
    gate = out_of_fold(trained_run.run, "moe")["gate"]
    assert figures["moe gate"]["quantile_05"] == pytest.approx(gate.quantile(0.05))


def test_a_second_call_trains_nothing_again(trained_run: TrainedRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run.run, run)  # preserves modification times
    before, predictions = trained_files(run), out_of_fold(run, "ensemble")
    assert len([path for path in before if path.endswith(".safetensors")]) == 6 + 1 + 1 + 1
    assert sum("/features-" in path for path in before) == 1  # three members stand on the same features
    assert train("all", trained_run.patients, run, *DATE, *OPTIONS).code == 0
    assert trained_files(run) == before
    pd.testing.assert_frame_equal(out_of_fold(run, "ensemble"), predictions)


def test_curves_are_recorded_and_change_no_weight(trained_run: TrainedRun, tmp_path: Path) -> None:
    """The first fold's networks, trained once more without curves."""
    bags, recipe = load_crops(trained_run.run), adapted(SMALL_BATCHES, EPOCHS, IMAGES)
    folds = pd.read_csv(trained_run.run / "folds.csv")["fold"].to_numpy()
    training, asked, cpu = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0), torch.device("cpu")
    job = Job("baseline fold-0", tmp_path / "fold-0.safetensors", 0)
    alone = baseline.train_network(bags, training, recipe.baseline, job, cpu).state_dict()
    kept = baseline.load_baseline(trained_run.run / "baseline/fold-0.safetensors").state_dict()
    assert all(torch.equal(alone[name], value) for name, value in kept.items())

    seen = embed_pictures(bags, trained_run.run, cpu, MAGNIFICATION)
    committee = experts.train_committee(bags, seen, training, recipe.experts, 0)
    probability = experts.judge(committee, bags.means(seen.pictures)[asked], bags.clinical[asked])["probability"]
    table = pd.read_csv(trained_run.run / "moe/out_of_fold.csv")
    np.testing.assert_allclose(probability, table["probability"].to_numpy()[asked], rtol=1e-9)

    columns = {f"{part}_balanced_accuracy" for part in ("training", "validation")}
    for member in ("baseline", "moe"):
        for fold in range(5):
            assert columns <= set(pd.read_csv(trained_run.run / member / f"fold-{fold}.history.csv"))


def test_the_last_epoch_is_scored_on_held_out_patients(trained_run: TrainedRun) -> None:
    """Of three epochs the last quarter is the last one, so the weights kept are those that it was scored with."""
    bags = load_crops(trained_run.run)
    folds = pd.read_csv(trained_run.run / "folds.csv")["fold"].to_numpy()
    asked = np.flatnonzero(folds == 2)
    network = baseline.load_baseline(trained_run.run / "baseline/fold-2.safetensors")
    probability = baseline.score(network, bags, asked, torch.device("cpu"), most=IMAGES)
    last = pd.read_csv(trained_run.run / "baseline/fold-2.history.csv").iloc[-1]
    for name, value in decision_rates(bags.labels[asked], probability).items():
        assert last[f"validation_{name}"] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    "other", [("--seed", "1"), ("--epochs", "2"), ("--recipe", "full"), ("--images-per-patient", "3")]
)
def test_another_seed_or_recipe_needs_another_folder(trained_run: TrainedRun, other: tuple[str, str]) -> None:
    call = train("all", trained_run.patients, trained_run.run, *DATE, *OPTIONS, *other)
    assert call.code == 2
    assert "run: was started with another seed or recipe. Choose another run folder" in call.errors


@pytest.fixture(scope="module")
def random_labels(trained_run: TrainedRun, own_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the same patients and pictures with permuted labels."""
    folder = tmp_path_factory.mktemp("random")
    patients, run = folder / "patients", folder / "run"
    patients.mkdir()
    for patient in trained_run.patients.iterdir():
        if patient.is_dir():
            shutil.copytree(patient, patients / patient.name)
    with (trained_run.patients / "clinical_annotation.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    column = rows[0].index("LABEL")
    dealt = np.random.default_rng(COHORT_SEED).permutation([row[column] for row in rows[1:]])
    for row, label in zip(rows[1:], dealt, strict=True):
        row[column] = str(label)
    with (patients / "clinical_annotation.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)

    with_features(trained_run, run)
    for command in ("baseline", "cells", "moe", "imagenet"):
        assert train(command, patients, run, *DATE, *OPTIONS).code == 0
    classes = own_network / "scan/classes.csv"  # found without labels, so they are the same
    assert train("naive-bayes", patients, run, *DATE, *OPTIONS, "--cell-classes", classes).code == 0
    return run


def test_cell_classes_are_found_without_labels(trained_run: TrainedRun, random_labels: Path) -> None:
    found, others = (pd.read_csv(run / "cells/classes.csv") for run in (trained_run.run, random_labels))
    pd.testing.assert_frame_equal(found, others)


def test_nothing_is_learnt_from_labels_at_random(random_labels: Path) -> None:
    """AUCs fall to chance level."""
    for member in (*registry.names(), GIVEN_CLASSES_FOLDER):
        table = out_of_fold(random_labels, member)
        for name in ("probability", "pictures_only"):
            assert abs(auc(table, name) - 0.5) < 0.3
