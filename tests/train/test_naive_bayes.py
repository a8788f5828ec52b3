"""Gaussian naive Bayes: the runtime agrees with scikit-learn, and the report's results are reproduced."""

import os
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import MinMaxScaler

from infer.members.naive_bayes import NaiveBayes, malignant_probability
from tests.synthetic import REFERENCE_DATE
from tests.train.bags import make_bags
from train.data.crops import cache_crops
from train.members.naive_bayes import (
    CellClassError,
    evaluate_naive_bayes,
    fit_naive_bayes,
    patient_features,
    read_cell_classes,
    train_naive_bayes,
)
from train.members.recipes import BayesRecipe

LYON = os.environ.get("LYMPHO_LYON", "")
LABELS = np.array([0, 1] * 20)
assigned = np.arange(40) // 2 % 5


def random_base(seed: int = 0, patients: int = 40) -> npt.NDArray[np.float64]:
    """Features on the scale of real ones, slightly higher for malignant patients: (P, 20)."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(15, 0.5), patients)
    count = rng.lognormal(2, 1, patients)
    count[::2] = rng.normal(8, 1, patients)[::2]  # reactive counts have a small variance
    base = np.column_stack([rng.integers(0, 2, patients), count, rng.uniform(20, 95, patients)])
    return np.column_stack([base, shares, rng.uniform(0, 3, patients), rng.integers(1, 15, patients)])


def sklearn_probability(
    base: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    asked: npt.NDArray[np.float64],
    smoothing: float,
    *,
    floored: bool = True,
) -> npt.NDArray[np.float64]:
    """The same implemented with scikit-learn, with the floor of the count searched on a grid."""

    def features(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack([values, (values > np.quantile(base, 0.9, axis=0)).sum(axis=1)])

    scaler = MinMaxScaler().fit(features(base))
    model = GaussianNB(var_smoothing=smoothing).fit(scaler.transform(features(base)), labels)
    if floored:
        asked = asked.copy()
        asked[:, 1] = np.maximum(asked[:, 1], lowest_odds(scaler, model))
    return np.asarray(model.predict_proba(scaler.transform(features(asked)))[:, 1])


def lowest_odds(scaler: MinMaxScaler, model: GaussianNB) -> float:
    """The count from 0 to 1000 with the lowest odds of malignant by naive Bayes; 0 if it is at an end of the range."""
    counts = np.linspace(0, 1000, 2_000_001)
    scaled = counts * scaler.scale_[1] + scaler.min_[1]
    odds = norm.logpdf(scaled[:, None], model.theta_[:, 1], np.sqrt(model.var_[:, 1]))
    lowest = float(counts[np.argmin(odds[:, 1] - odds[:, 0])])
    return lowest if 0 < lowest < 1000 else 0.0


@pytest.mark.parametrize("smoothing", [1e-9, 1e-2])
def test_numpy_equals_scikit_learn(smoothing: float) -> None:
    base, asked = random_base(0), random_base(1, patients=200)
    asked[:20] *= 1000  # far outside the training range
    asked[20:40] *= -1000
    asked[40] = 0
    model = fit_naive_bayes(base, LABELS, BayesRecipe(smoothing))
    assert (asked[:, 1] < model.count_floor).sum() > 20
    found = malignant_probability(asked, model)
    np.testing.assert_allclose(found, sklearn_probability(base, LABELS, asked, smoothing), rtol=0, atol=1e-7)
    assert found.min() < 0.01
    assert found.max() > 0.99
    assert 3 < model.count_floor < 9
    np.testing.assert_allclose([malignant_probability(row, model) for row in asked], found, rtol=0, atol=1e-15)


def test_a_constant_feature_does_no_harm() -> None:
    base = random_base(0)
    base[:, 5] = 0.25
    model = fit_naive_bayes(base, LABELS, BayesRecipe())
    expected = sklearn_probability(base, LABELS, base, BayesRecipe().smoothing)
    np.testing.assert_allclose(malignant_probability(base, model), expected, rtol=0, atol=1e-7)


def test_features_by_hand() -> None:
    bags = make_bags([0, 1], [4, 2])
    first, second = patient_features(bags, np.array([0, 0, 0, 14, 7, 7]))
    shares = np.zeros(15)
    shares[[0, 14]] = 0.75, 0.25
    entropy = -(0.75 * np.log(0.751) + 0.25 * np.log(0.251))
    np.testing.assert_allclose(first, [*bags.clinical[0], *shares, entropy, 2])
    assert second[3 + 7] == 1
    assert second[19] == 1


BAGS = make_bags([0, 1], [2, 1])


def write_classes(path: Path, rows: list[tuple[str, str, object]]) -> Path:
    pd.DataFrame(rows, columns=["patient_id", "image", "cell_class"]).to_csv(path, index=False)
    return path


def test_cell_classes_come_in_the_bags_order(tmp_path: Path) -> None:
    rows: list[tuple[str, str, object]] = [("p1", "p1/0.png", 14), ("p9", "0.png", 3), ("p0", "1.png", 5)]
    path = write_classes(tmp_path / "classes.csv", [*rows, ("p0", "0.png", 0)])
    assert read_cell_classes(path, BAGS).tolist() == [0, 5, 14]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p0/1.png": None}, "has no class for p0/1.png"),
        ({"p0/1.png": ""}, "not a whole number from 0 to 14"),
        ({"p0/1.png": 15}, "not a whole number from 0 to 14"),
        ({"p0/1.png": -1}, "not a whole number from 0 to 14"),
        ({"p0/1.png": 2.5}, "not a whole number from 0 to 14"),
        ({"p0/1.png": "blast"}, "not a whole number from 0 to 14"),
    ],
)
def test_bad_cell_classes(change: dict[str, object], message: str, tmp_path: Path) -> None:
    classes: dict[str, object] = {"p0/0.png": 1, "p0/1.png": 2, "p1/0.png": 3} | change
    rows = [(*name.split("/"), value) for name, value in classes.items() if value is not None]
    path = write_classes(tmp_path / "classes.csv", rows)  # type: ignore[arg-type]
    with pytest.raises(CellClassError, match=rf"classes\.csv: .*{message}"):
        read_cell_classes(path, BAGS)


def test_two_classes_for_one_picture(tmp_path: Path) -> None:
    rows: list[tuple[str, str, object]] = [
        ("p0", "0.png", 1),
        ("p0", "1.png", 2),
        ("p0", "p0/0.png", 1),
        ("p1", "0.png", 1),
    ]
    with pytest.raises(CellClassError, match=r"classes\.csv: p0/0\.png has two classes"):
        read_cell_classes(write_classes(tmp_path / "classes.csv", rows), BAGS)


@pytest.mark.parametrize("text", ["", "patient_id,image\np0,0.png\n", "\x00\xff"])
def test_a_file_that_is_no_table_of_classes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(CellClassError, match=r"classes\.csv"):
        read_cell_classes(path, BAGS)


def out_of_fold(base: npt.NDArray[np.float64], run: Path) -> pd.DataFrame:
    """train_naive_bayes on given features instead of pictures."""
    bags = make_bags(LABELS.tolist(), [1] * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.members.naive_bayes.patient_features", lambda bags, classes: base)
        return train_naive_bayes(bags, np.zeros(40, dtype=np.int64), assigned, run / "naive_bayes", BayesRecipe())


def test_out_of_fold_equals_five_separate_fits(tmp_path: Path) -> None:
    base = random_base()
    table = out_of_fold(base, tmp_path)
    for fold in range(5):
        seen, held_out = assigned != fold, assigned == fold
        expected = sklearn_probability(base[seen], LABELS[seen], base[held_out], 1e-9)
        np.testing.assert_allclose(table["probability"][held_out], expected, rtol=0, atol=1e-7)
        pictures = sklearn_probability(base[seen][:, 3:], LABELS[seen], base[held_out][:, 3:], 1e-9, floored=False)
        np.testing.assert_allclose(table["pictures_only"][held_out], pictures, rtol=0, atol=1e-7)
    full = msgspec.json.decode((tmp_path / "naive_bayes/full.json").read_bytes(), type=NaiveBayes)
    np.testing.assert_allclose(
        malignant_probability(base, full), sklearn_probability(base, LABELS, base, 1e-9), rtol=0, atol=1e-7
    )


def test_a_held_out_patient_touches_nothing_it_is_scored_with(tmp_path: Path) -> None:
    base = random_base()
    changed = base.copy()
    changed[4] = changed.max(axis=0) * 3  # enough to change every quantile, minimum and range that includes it
    before, after = (out_of_fold(values, tmp_path / name) for values, name in ((base, "a"), (changed, "b")))
    same = before["probability"] == after["probability"]
    companions = (assigned == assigned[4]) & (np.arange(40) != 4)
    assert same[companions].all()
    assert not same[assigned != assigned[4]].any()


def test_honest_and_report_differ_by_what_the_held_out_give_away() -> None:
    base = random_base(3)
    honest, report = (evaluate_naive_bayes(base, LABELS, name, BayesRecipe()) for name in ("honest", "report"))
    assert (honest.protocol, report.protocol) == ("honest", "report")
    assert len(honest.fold_balanced_accuracy) == 5
    assert honest.fold_balanced_accuracy != report.fold_balanced_accuracy
    smooth = [evaluate_naive_bayes(base, LABELS, name, BayesRecipe(1.0)) for name in ("honest", "report")]
    assert smooth[0] != honest
    assert smooth[1] == report  # the report's protocol ignores the recipe's smoothing


@pytest.mark.skipif(not LYON, reason="LYMPHO_LYON names no folder with the real trainset/ and cell_classes.csv")
def test_the_reports_figures_on_its_own_classes(tmp_path: Path) -> None:
    bags = cache_crops(Path(LYON) / "trainset", tmp_path, REFERENCE_DATE, None)
    assert (len(bags), len(bags.crops)) == (130, 10622)
    base = patient_features(bags, read_cell_classes(Path(LYON) / "cell_classes.csv", bags))
    # The recipe's smoothing is not the report's, and must be ignored.
    figures = evaluate_naive_bayes(base, bags.labels, "report", BayesRecipe(smoothing=0.1))
    assert figures.training_balanced_accuracy == pytest.approx(0.8923611, abs=1e-6)
    assert figures.validation_balanced_accuracy == pytest.approx(0.9166667, abs=1e-6)
    folds = [0.88889, 0.84722, 0.81944, 0.94444, 0.90972]
    assert figures.fold_balanced_accuracy == pytest.approx(folds, abs=6e-6)
