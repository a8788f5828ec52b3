"""Training learns a signal if there is one, and nothing from random labels: `python -m train` on synthetic patients."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.train_fixtures import COHORT_SEED, DATE, OPTIONS, TrainedRun, train
from train.members import registry
from train.members.naive_bayes import GIVEN_CLASSES_FOLDER

FOLDERS = {member.name: member.folder for member in registry.MEMBERS}


def out_of_fold(run: Path, member: str) -> pd.DataFrame:
    return pd.read_csv(
        run / FOLDERS.get(member, member) / "out_of_fold.csv",
        dtype={"patient_id": str},
    )


def auc(table: pd.DataFrame, column: str) -> float:
    return float(roc_auc_score(table["label"], table[column]))


def trained_files(run: Path) -> dict[str, int]:
    """Modification times of all networks, fold predictions and histories."""
    patterns = ("*/*.safetensors", "*/fold-*.csv", "*/*.history.csv", "crops/*", "folds.csv")
    return {str(path): path.stat().st_mtime_ns for pattern in patterns for path in run.glob(pattern)}


@pytest.mark.parametrize("member", registry.names())
def test_each_member_learns_from_pictures_alone(trained_run: TrainedRun, member: str) -> None:
    assert auc(out_of_fold(trained_run.run, member), "pictures_only") > 0.75


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
    assert len([path for path in before if path.endswith(".safetensors")]) == 2 * 6 + 3 + 1
    assert train("all", trained_run.patients, run, *DATE, *OPTIONS).code == 0
    assert trained_files(run) == before
    pd.testing.assert_frame_equal(out_of_fold(run, "ensemble"), predictions)


@pytest.mark.parametrize(
    "other", [("--seed", "1"), ("--epochs", "2"), ("--recipe", "full"), ("--images-per-patient", "3")]
)
def test_another_seed_or_recipe_needs_another_folder(trained_run: TrainedRun, other: tuple[str, str]) -> None:
    call = train("all", trained_run.patients, trained_run.run, *DATE, *OPTIONS, *other)
    assert call.code == 2
    assert "run: was started with another seed or recipe. Choose another run folder" in call.errors


def test_nothing_is_learnt_from_labels_at_random(trained_run: TrainedRun, tmp_path: Path) -> None:
    """The same patients, pictures and folds with permuted labels: AUCs fall to chance level."""
    patients, run = tmp_path / "patients", tmp_path / "run"
    patients.mkdir()
    for folder in trained_run.patients.iterdir():
        if folder.is_dir():
            shutil.copytree(folder, patients / folder.name)
    with (trained_run.patients / "clinical_annotation.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    column = rows[0].index("LABEL")
    dealt = np.random.default_rng(COHORT_SEED).permutation([row[column] for row in rows[1:]])
    for row, label in zip(rows[1:], dealt, strict=True):
        row[column] = str(label)
    with (patients / "clinical_annotation.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)

    assert train("baseline", patients, run, *DATE, "--recipe", "small", "--epochs", "3").code == 0
    classes = trained_run.run / "scan/classes.csv"  # found without labels, so they are the same
    options = (*DATE, "--recipe", "small", "--epochs", "3", "--cell-classes", classes)
    assert train("naive-bayes", patients, run, *options).code == 0
    for member in ("baseline", GIVEN_CLASSES_FOLDER):
        table = out_of_fold(run, member)
        for name in ("probability", "pictures_only"):
            assert abs(auc(table, name) - 0.5) < 0.3
