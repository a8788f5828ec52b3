"""The comparison with the field's methods: figures of a slow reference, and nobody judged by a model that saw him."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from tests.train.bags import make_bags
from tests.train_fixtures import DATE, TrainedRun, train, with_features
from train.core.arrays import Floats, Indices, Labels
from train.data.bags import Bags
from train.data.whose_pictures import SWAPPED, by_pictures, whose_pictures
from train.experiments.methods import compare as comparison
from train.experiments.methods.compare import ALONE, CLINICAL, FUSED, METHODS, OURS, compare
from train.experiments.methods.method import Judge, Method, View, project
from train.members import imagenet
from train.members.features import Features
from train.members.linear import fit_fixed

CPU = torch.device("cpu")
PATIENTS, PICTURES, WIDTH = 40, 3, 12
GREY = 7.68


@pytest.fixture
def bags() -> Bags:
    made = make_bags([0, 1] * (PATIENTS // 2), [PICTURES] * PATIENTS)
    made.clinical[:, 1] = np.linspace(5, 12, PATIENTS)  # 15 in the grey zone
    return made


def seen(bags: Bags, worth: float) -> Features:
    """Features of which half tell the label, as far as they are worth something."""
    pictures = np.random.default_rng(0).normal(size=(PICTURES * PATIENTS, WIDTH)).astype(np.float32)
    pictures[:, : WIDTH // 2] += worth * bags.labels[bags.patient_of_image()][:, None]
    return Features(pictures, np.zeros(WIDTH, dtype=np.float32))


def by_mean(bags: Bags, means: Floats, training: Indices, asked: Indices) -> dict[str, Floats]:
    """In place of our member, whose features are wider."""
    model = LogisticRegression().fit(means[training], bags.labels[training])
    return by_pictures(asked, bags.patient_ids, lambda shown: model.predict_proba(means[shown])[:, 1])


def table_of(bags: Bags, run: Path, features: Features, methods: tuple[Method, ...], seeds: int = 2) -> pd.DataFrame:
    run.mkdir(exist_ok=True)
    with (
        patch.object(comparison, "METHODS", {method.name: method for method in methods}),
        patch.object(comparison, "embed_pictures", lambda *_: features),
        patch.object(imagenet, "fit_and_predict", by_mean),
    ):
        return compare(bags, run, 3, CPU, seeds)


def values(table: pd.DataFrame, column: str = "value") -> dict[tuple[str, ...], float]:
    keys = table[["method", "form", "pictures", "figure"]].itertuples(index=False)
    return dict(zip((tuple(key) for key in keys), table[column], strict=True))


def test_figures_are_those_of_a_slow_reference(bags: Bags, tmp_path: Path) -> None:
    features = seen(bags, 0.7)
    table = table_of(bags, tmp_path, features, (METHODS["mean"],))
    written = pd.read_csv(tmp_path / "methods/methods.csv", keep_default_na=False, na_values=[""])
    pd.testing.assert_frame_equal(written.fillna({"form": ""}), table)

    sex, count, age = bags.clinical.astype(np.float64).T
    clinical = np.stack([sex, np.log(count) - 2, (age - 60) / 10, 3 * np.log(np.maximum(count, 7) / 7)], axis=1)
    of_patient = bags.patient_of_image()

    def scores(rest: Indices, shown: Indices) -> Floats:
        pca = PCA(WIDTH).fit(features.pictures[np.isin(of_patient, rest)].astype(np.float64))
        pictures = pca.transform(features.pictures)
        means = np.stack([pictures[of_patient == patient].mean(axis=0) for patient in range(PATIENTS)])
        return np.asarray(fit_fixed(means[rest], bags.labels[rest], WIDTH).decision_function(means[shown]))

    def judged(rest: Indices, held_out: Indices, *more: tuple[Floats, Floats]) -> Floats:
        known = np.column_stack([clinical[rest], *(one for one, _ in more)])
        asked = np.column_stack([clinical[held_out], *(other for _, other in more)])
        scaler = StandardScaler().fit(known)
        model = LogisticRegression(class_weight="balanced").fit(scaler.transform(known), bags.labels[rest])
        return np.asarray(model.predict_proba(scaler.transform(asked))[:, 1])

    repeats: dict[tuple[str, ...], list[Floats]] = {}
    for repeat in range(2):
        found: dict[tuple[str, ...], Floats] = {}
        for rest, held_out in StratifiedKFold(5, shuffle=True, random_state=3 + repeat).split(clinical, bags.labels):
            unseen = np.empty(PATIENTS)
            inner = StratifiedKFold(3, shuffle=True, random_state=3 + repeat)
            for known, left in inner.split(rest, bags.labels[rest]):
                unseen[rest[left]] = scores(rest[known], rest[left])
            own, others = scores(rest, held_out), whose_pictures(held_out, bags.patient_ids)[SWAPPED]
            by_fold: dict[tuple[str, ...], Floats] = {
                ("mean", ALONE, "own"): expit(own),
                ("mean", FUSED, "own"): judged(rest, held_out, (unseen[rest], own)),
                ("mean", FUSED, "swapped"): judged(rest, held_out, (unseen[rest], scores(rest, others))),
                (CLINICAL, "", "own"): judged(rest, held_out),
            }
            for key, probability in by_fold.items():
                found.setdefault(key, np.empty(PATIENTS))[held_out] = probability
        for key, probability in found.items():
            repeats.setdefault(key, []).append(probability)
    got, grey = values(table), count <= GREY
    for key, of in repeats.items():
        areas = [roc_auc_score(bags.labels, one) for one in of]
        accuracies = [balanced_accuracy_score(bags.labels, one >= 0.5) for one in of]
        in_zone = [roc_auc_score(bags.labels[grey], one[grey]) for one in of]
        for figure, expected in (("auc", areas), ("balanced_accuracy", accuracies), ("grey_zone_auc", in_zone)):
            assert got[(*key, figure)] == pytest.approx(np.mean(expected))
            assert values(table, "spread")[(*key, figure)] == pytest.approx(np.std(expected, ddof=1))
    for what, other in (("clinical", CLINICAL), ("ours", OURS)):
        difference = got["mean", FUSED, "own", "auc"] - got[other, "", "own", "auc"]
        assert values(table, f"over_{what}")["mean", FUSED, "own", "auc"] == pytest.approx(difference)
        assert values(table, f"over_{what}")[other, "", "own", "auc"] == 0


def test_pictures_that_tell_are_found_and_others_pictures_cost_it(bags: Bags, tmp_path: Path) -> None:
    got = values(table_of(bags, tmp_path, seen(bags, 5.0), (METHODS["mean"], METHODS["prototypes"]), seeds=1))
    for method in ("mean", "prototypes"):
        assert got[method, ALONE, "own", "auc"] > 0.95
        assert got[method, FUSED, "own", "auc"] > got[CLINICAL, "", "own", "auc"] + 0.2
        for pictures in ("swapped", "blank"):
            assert got[method, FUSED, "own", "auc"] > got[method, FUSED, pictures, "auc"] + 0.2
    assert {key[2] for key in got if key[0] == CLINICAL} == {"own"}


def test_labels_that_mean_nothing_are_not_found(bags: Bags, tmp_path: Path) -> None:
    other = replace(bags, labels=np.random.default_rng(1).permutation(bags.labels))
    got = values(table_of(other, tmp_path, seen(bags, 5.0), (METHODS["mean"],)))
    assert abs(got["mean", ALONE, "own", "auc"] - 0.5) < 0.2


def test_nobody_is_judged_by_a_model_that_saw_him(bags: Bags, tmp_path: Path) -> None:
    """A method that knows its patients by heart and nothing else is worth nothing, alone or fused."""

    def by_heart(view: View, training: Indices, labels: Labels, seed: int) -> Judge:
        known = dict(zip(training.tolist(), (20.0 * labels - 10).tolist(), strict=True))
        return lambda shown: np.array([known.get(patient, 0.0) for patient in shown.tolist()])

    got = values(table_of(bags, tmp_path, seen(bags, 5.0), (Method("by heart", by_heart, {}),)))
    for pictures in ("own", "swapped", "blank"):
        assert got["by heart", ALONE, pictures, "auc"] == 0.5
        assert got["by heart", FUSED, pictures, "auc"] == pytest.approx(got[CLINICAL, "", "own", "auc"])


def test_each_repeat_has_a_seed_of_its_own_and_what_is_finished_is_not_fitted_again(bags: Bags, tmp_path: Path) -> None:
    seeds: list[int] = []

    def fit(view: View, training: Indices, labels: Labels, seed: int) -> Judge:
        seeds.append(seed)
        return lambda shown: shown.astype(np.float64)

    first = table_of(bags, tmp_path, seen(bags, 0.0), (Method("counted", fit, {}),))
    assert seeds == [3] * 20 + [4] * 20
    pd.testing.assert_frame_equal(table_of(bags, tmp_path, seen(bags, 0.0), (Method("counted", fit, {}),)), first)
    assert len(seeds) == 40


def test_a_view_depends_on_its_patients_alone_and_is_of_order_one(bags: Bags) -> None:
    features, training = seen(bags, 1.0), np.arange(30)
    view = project(bags, features, training)
    assert view.of_all(training).var(axis=0, ddof=1).mean() == pytest.approx(1, rel=1e-4)
    other = features.pictures.copy()
    other[30 * PICTURES :] *= 100
    changed = project(bags, replace(features, pictures=other), training)
    np.testing.assert_array_equal(changed.of_all(training), view.of_all(training))
    assert view.of(-1).shape == (1, WIDTH)


def test_without_the_library_its_methods_are_wrong_usage(tmp_path: Path) -> None:
    with patch("train.experiments.methods.networks.find_spec", lambda _: None):
        call = train("methods", tmp_path, tmp_path / "run", *DATE, "--recipe", "small")
    assert call.code == 2
    assert "pip install torchmil" in call.errors
    assert "ABMIL" in call.errors
    assert not (tmp_path / "run").exists()


def test_the_command_prints_the_table_of_what_it_compares(trained_run: TrainedRun, tmp_path: Path) -> None:
    """On real features, with our member."""
    given = ("--recipe", "small", "--seeds", "1", "--method", "mean")
    run = with_features(trained_run, tmp_path / "run")
    call = train("methods", trained_run.patients, run, *DATE, *given)
    assert call.code == 0, call.errors
    table = pd.read_csv(run / "methods/methods.csv")
    assert table["method"].unique().tolist() == [CLINICAL, OURS, "mean"]
    for row in table.query("pictures == 'own'").itertuples():
        assert f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" in call.output
