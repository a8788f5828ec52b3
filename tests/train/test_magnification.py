"""The comparison of magnifications: its figures are those of a slow reference, and nobody is judged who was seen."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from tests.train.bags import make_bags
from tests.train_fixtures import DATE, TrainedRun, train
from train.data.bags import Bags
from train.data.whose_pictures import NOBODY, SWAPPED, whose_pictures
from train.experiments import magnification
from train.experiments.magnification import NO_PICTURES, compare
from train.members.embedding import FEATURES, Magnification
from train.members.features import Features
from train.members.linear import fit_fixed

CPU = torch.device("cpu")
PATIENTS = 40


@pytest.fixture
def bags() -> Bags:
    made = make_bags([0, 1] * (PATIENTS // 2), [2] * PATIENTS)
    made.clinical[:, 1] = np.linspace(5, 12, PATIENTS)  # 15 in the grey zone
    return made


def seen(bags: Bags, worth: float) -> Features:
    """Features of which half tell the label, as far as they are worth something."""
    pictures = np.random.default_rng(0).normal(size=(2 * PATIENTS, FEATURES)).astype(np.float32)
    pictures[:, :640] += worth * bags.labels[bags.patient_of_image()][:, None]
    return Features(pictures, np.zeros(FEATURES, dtype=np.float32))


def test_figures_are_those_of_a_slow_reference_and_pictures_that_tell_win(bags: Bags, tmp_path: Path) -> None:
    by_size = {112: seen(bags, 0.0), 224: seen(bags, 5.0)}
    with patch.object(magnification, "embed_pictures", lambda *given: by_size[given[-1].size]):
        table = compare(bags, tmp_path, 3, CPU, [Magnification(112, 112), Magnification(112, 224)])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "magnification/magnification.csv"), table)
    found = table.set_index(["magnification", "pictures", "figure"])["value"].to_dict()
    assert found["112 -> 224", "own", "auc"] > 0.95
    for other in (
        ("112 -> 112", "own"), ("112 -> 224", "swapped"), ("112 -> 224", "blank"), (NO_PICTURES, "own")
    ):  # fmt: skip
        assert found["112 -> 224", "own", "auc"] > found[(*other, "auc")] + 0.2
    assert set(table.query("magnification == @NO_PICTURES")["pictures"]) == {"own"}

    sex, count, age = bags.clinical.astype(np.float64).T
    excess = 3 * np.log(np.maximum(count, 7) / 7)
    clinical = np.stack([sex, np.log(count) - 2, (age - 60) / 10, excess], axis=1)
    means = np.stack([by_size[224].pictures[a:b].mean(axis=0) for a, b in bags.ranges()] + [np.zeros(FEATURES)])
    areas, in_zone, accuracies, swapped = [], [], [], []
    for repeat in range(5):
        probability, by_others = np.empty(PATIENTS), np.empty(PATIENTS)
        splitter = StratifiedKFold(5, shuffle=True, random_state=3 + repeat)
        for rest, held_out in splitter.split(bags.labels, bags.labels):
            model = fit_fixed(np.hstack([clinical, means[:NOBODY]])[rest], bags.labels[rest], FEATURES)
            whose = whose_pictures(held_out, bags.patient_ids)[SWAPPED]
            for result, shown in ((probability, held_out), (by_others, whose)):
                asked = np.hstack([clinical[held_out], means[shown]])
                result[held_out] = model.predict_proba(asked)[:, 1]
        grey = count <= 7.68
        areas.append(roc_auc_score(bags.labels, probability))
        in_zone.append(roc_auc_score(bags.labels[grey], probability[grey]))
        accuracies.append(balanced_accuracy_score(bags.labels, probability >= 0.5))
        swapped.append(roc_auc_score(bags.labels, by_others))
    expected = {
        ("own", "auc"): areas,
        ("own", "grey_zone_auc"): in_zone,
        ("own", "balanced_accuracy"): accuracies,
        ("swapped", "auc"): swapped,
    }
    for (pictures, figure), values in expected.items():
        assert found["112 -> 224", pictures, figure] == pytest.approx(np.mean(values))


def test_labels_that_mean_nothing_are_not_found(bags: Bags, tmp_path: Path) -> None:
    telling = seen(bags, 5.0)
    other = replace(bags, labels=np.random.default_rng(1).permutation(bags.labels))
    with patch.object(magnification, "embed_pictures", lambda *_: telling):
        table = compare(other, tmp_path, 0, CPU, [Magnification(112, 224)])
    own = table.query("pictures == 'own' and figure == 'auc' and magnification == '112 -> 224'")
    assert abs(own["value"].item() - 0.5) < 0.2


def test_the_command_prints_the_table_of_what_it_compares(trained_run: TrainedRun, tmp_path: Path) -> None:
    """On real features, at the cheapest magnifications."""
    two = (Magnification(64, 32), Magnification(112, 32))
    with patch.object(magnification.compare, "__defaults__", (two,)):
        call = train("magnification", trained_run.patients, tmp_path / "run", *DATE, "--recipe", "small")
    assert call.code == 0, call.errors
    table = pd.read_csv(tmp_path / "run/magnification/magnification.csv")
    assert table["magnification"].unique().tolist() == [NO_PICTURES, "64 -> 32", "112 -> 32"]
    for row in table.query("pictures == 'own'").itertuples():
        assert f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" in call.output
    assert len(list((tmp_path / "run").glob("features-*.npy"))) == 2
