"""Comparison of scikit-learn's classifiers: same folds and features as naive Bayes, none missing, drawn as stored."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import all_estimators

from infer.errors import UsageError
from train.evaluation.report_protocol import LABEL, STATED
from train.experiments import classifiers
from train.experiments.classifiers import Comparison, compare_classifiers, write_comparison
from train.figures.classifiers import box_plot, draw_classifiers, read_boxes
from train.figures.table import write_table_2
from train.members.naive_bayes import FOLDER, evaluate_naive_bayes
from train.members.recipes import BayesRecipe

LABELS = np.array([0, 1] * 30)
PROTOCOLS = ["report", "honest"]


def random_base(labels: npt.NDArray[np.int64] = LABELS, shift: float = 0.8) -> npt.NDArray[np.float64]:
    """Features of which the first three are higher by `shift` for malignant patients: (P, 20)."""
    base = np.random.default_rng(7).normal(size=(len(labels), 20))
    base[:, 3:] = np.exp(2 * base[:, 3:])  # skewed, so that a held-out maximum changes the scale
    base[:, :3] += shift * labels[:, None]
    return base


class Raising(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Can be fitted, but raises in prediction."""

    def fit(self, features: Any, labels: Any) -> "Raising":
        self.classes_ = np.unique(labels)
        return self

    def predict(self, features: Any) -> Any:
        raise ArithmeticError("no such\n   luck " + "with it " * 100)


class Warns(GaussianNB):  # type: ignore[misc]
    """Gives the same warning twice, and divides by zero."""

    def fit(self, features: Any, labels: Any) -> Any:
        for _ in range(2):
            warnings.warn("did not get there", UserWarning, stacklevel=1)
        np.ones(1) / np.zeros(1)
        return super().fit(features, labels)


def among(monkeypatch: pytest.MonkeyPatch, *kinds: type) -> None:
    """Replace the list of scikit-learn's classifiers."""
    monkeypatch.setattr(classifiers, "all_estimators", lambda type_filter: [(kind.__name__, kind) for kind in kinds])


def accuracies(comparison: Comparison, kind: type) -> list[float]:
    scores = comparison.scores
    return scores.loc[scores["classifier"] == kind.__name__, "balanced_accuracy"].tolist()


def reference(model: Any, base: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], protocol: str) -> list[float]:
    """The same implemented only with scikit-learn."""
    values = []
    for training, held_out in StratifiedKFold(5, shuffle=True, random_state=42).split(base, labels):
        seen = np.arange(len(base)) if protocol == "report" else training
        features = np.column_stack([base, (base > np.quantile(base[seen], 0.9, axis=0)).sum(axis=1)])
        scaled = MinMaxScaler().fit(features[seen]).transform(features)
        predicted = model.fit(scaled[training], labels[training]).predict(scaled[held_out])
        values.append(balanced_accuracy_score(labels[held_out], predicted))
    return values


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_classifier_is_scored_or_named(protocol: str, recwarn: pytest.WarningsRecorder) -> None:
    base = random_base()
    found = compare_classifiers(base, LABELS, protocol, BayesRecipe(), 3)
    assert not recwarn.list
    names = {name for name, _ in all_estimators(type_filter="classifier")}
    scored, left_out = set(found.scores["classifier"]), set(found.left_out["classifier"])
    assert scored | left_out == names
    assert not scored & left_out
    assert len(scored) >= 25
    assert found.scores["fold"].tolist() == list(range(5)) * len(scored)
    assert set(found.scores["protocol"]) == {protocol}
    assert found.scores["balanced_accuracy"].between(0, 1).all()

    kinds = found.left_out.set_index("classifier")["kind"]
    named = ["StackingClassifier", "OneVsRestClassifier", "SelfTrainingClassifier", "MultiOutputClassifier"]
    assert set(kinds[[*named, "CategoricalNB"]]) == {"not suitable"}
    reasons = found.left_out.set_index("classifier")["reason"]
    assert reasons["VotingClassifier"] == "wraps other classifiers: needs estimators"
    assert reasons["ClassifierChain"].startswith("predicts several labels at once")
    assert reasons.str.len().min() > 20

    notes = found.scores.set_index("classifier")["note"]
    assert notes["MLPClassifier"].str.startswith("ConvergenceWarning: ").all()
    assert (notes["GaussianNB"] == "").all()

    figures = evaluate_naive_bayes(base, LABELS, protocol, BayesRecipe())
    assert accuracies(found, GaussianNB) == figures.fold_balanced_accuracy
    assert len(set(figures.fold_balanced_accuracy)) > 1
    for model in (LogisticRegression(random_state=3), RandomForestClassifier(random_state=3)):
        assert accuracies(found, type(model)) == pytest.approx(reference(model, base, LABELS, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_naive_bayes_has_the_same_smoothing_as_in_its_own_figures(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    among(monkeypatch, GaussianNB)
    base = random_base(shift=0.4)
    smooth = BayesRecipe(smoothing=3.0)
    found = accuracies(compare_classifiers(base, LABELS, protocol, smooth, 0), GaussianNB)
    assert found == evaluate_naive_bayes(base, LABELS, protocol, smooth).fold_balanced_accuracy
    plain = accuracies(compare_classifiers(base, LABELS, protocol, BayesRecipe(), 0), GaussianNB)
    assert (found == plain) == (protocol == "report")


def test_the_protocols_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    among(monkeypatch, KNeighborsClassifier)
    report, honest = (compare_classifiers(random_base(), LABELS, name, BayesRecipe(), 0) for name in PROTOCOLS)
    assert accuracies(report, KNeighborsClassifier) != accuracies(honest, KNeighborsClassifier)


def test_the_seed_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    among(monkeypatch, RandomForestClassifier)
    found = [compare_classifiers(random_base(), LABELS, "honest", BayesRecipe(), seed).scores for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(found[0], found[1])
    assert not found[0].equals(found[2])


def test_one_that_raises_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    among(monkeypatch, GaussianNB, Raising, MultiOutputClassifier)
    found = compare_classifiers(random_base(), LABELS, "honest", BayesRecipe(), 0)
    assert set(found.scores["classifier"]) == {"GaussianNB"}
    write_comparison(found, tmp_path / FOLDER)
    table = pd.read_csv(tmp_path / "naive_bayes" / "classifiers_left_out.csv")
    assert table.columns.tolist() == ["classifier", "kind", "reason"]
    (name, kind, reason), (wrapper, why, _) = table.to_numpy().tolist()
    assert (name, kind) == ("Raising", "failed")
    assert reason.startswith("ArithmeticError: no such luck with it with it")
    assert reason.endswith(" ...")
    assert len(reason) < 200
    assert (wrapper, why) == ("MultiOutputClassifier", "not suitable")


def test_warnings_become_notes(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    among(monkeypatch, Warns)
    found = compare_classifiers(random_base(), LABELS, "honest", BayesRecipe(), 0)
    expected = "UserWarning: did not get there; RuntimeWarning: divide by zero encountered in divide"
    assert found.scores["note"].tolist() == [expected] * 5
    assert not recwarn.list


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_can_be_separated_is(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    among(monkeypatch, LogisticRegression)
    base = random_base(shift=50)
    found = accuracies(compare_classifiers(base, LABELS, protocol, BayesRecipe(), 0), LogisticRegression)
    assert found == [1.0] * 5
    shuffled = np.random.default_rng(0).permutation(LABELS)
    found = accuracies(compare_classifiers(base, shuffled, protocol, BayesRecipe(), 0), LogisticRegression)
    assert np.mean(found) < 0.7  # near chance: held-out labels do not reach the model


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_order_within_a_folds_class_does_not_matter(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    among(monkeypatch, GaussianNB, KNeighborsClassifier, LogisticRegression)
    base, rng, order = random_base(), np.random.default_rng(1), np.arange(len(LABELS))
    for _, held_out in StratifiedKFold(5, shuffle=True, random_state=42).split(base, LABELS):
        for label in (0, 1):
            group = held_out[LABELS[held_out] == label]
            order[group] = rng.permutation(group)
    assert (order != np.arange(len(LABELS))).sum() > 30
    before, after = (compare_classifiers(rows, LABELS, protocol, BayesRecipe(), 0) for rows in (base, base[order]))
    pd.testing.assert_frame_equal(before.scores, after.scores)
    mixed = compare_classifiers(base[rng.permutation(len(base))], LABELS, protocol, BayesRecipe(), 0)
    assert not before.scores.equals(mixed.scores)


def stored_run(run: Path, *, baseline: bool) -> Path:
    """A run folder with four classifiers and a baseline member, which the report's protocol has judged or not."""
    folds = {
        "Middle": [0.6, 0.7, 0.8, 0.7, 0.5],
        "Worst": [0.5, 0.5, 0.5, 0.9, 0.5],
        "GaussianNB": [0.9, 0.7, 0.95, 0.8, 0.85],
        "Middle, higher mean": [0.7, 0.7, 0.9, 0.7, 0.6],
    }
    rows = [(name, fold, value, "") for name, values in folds.items() for fold, value in enumerate(values)]
    scores = pd.DataFrame(rows, columns=["classifier", "fold", "balanced_accuracy", "note"]).assign(protocol="honest")
    left_out = pd.DataFrame([("Other", "failed", "ValueError: no")], columns=["classifier", "kind", "reason"])
    write_comparison(Comparison(scores, left_out), run / FOLDER)
    if baseline:
        (run / "report").mkdir()
        figures = {"training": 0.9, "validation": 0.8, "folds": [0.6, 0.65], "folds_mean": 0.625, "folds_spread": 0.025}
        facts = {"protocol": LABEL, "recipe": "small", "seed": 0, "patients": 13, "stated_in_report": STATED}
        (run / "report" / "metrics.json").write_text(json.dumps(facts | {"models": {"baseline": figures}}))
    (run / "baseline").mkdir()  # the member's own folds, which say something else
    table = pd.DataFrame({"patient_id": ["a", "b", "c", "d"], "fold": [0, 0, 1, 1], "label": [0, 1, 0, 1]})
    table.assign(probability=0.5, pictures_only=0.5).to_csv(run / "baseline" / "out_of_fold.csv", index=False)
    return run


def lines(figure: Figure, gid: str) -> list[Line2D]:
    return [line for line in figure.axes[0].lines if line.get_gid() == gid]


def test_what_is_stored_is_drawn(tmp_path: Path) -> None:
    boxes = read_boxes(stored_run(tmp_path, baseline=True))
    assert boxes.names == ["GaussianNB", "Middle, higher mean", "Middle", "Worst"]
    assert boxes.protocol == "honest"
    assert boxes.baseline == 0.625
    figure = box_plot(boxes)
    drawn = [(np.mean(np.asarray(line.get_ydata())), *np.unique(line.get_xdata())) for line in lines(figure, "median")]
    assert drawn == [(4, pytest.approx(0.85)), (3, pytest.approx(0.7)), (2, pytest.approx(0.7)), (1, 0.5)]
    ticks = figure.axes[0].get_yticks().tolist()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert dict(zip(labels, ticks, strict=True)) == dict(zip(boxes.names, [4, 3, 2, 1], strict=True))
    (level,) = lines(figure, "baseline")
    assert level.get_xdata() == [0.625, 0.625]
    said = "baseline CNN, mean over folds in table 2 (report protocol: optimistic): 0.625"
    assert figure.legends[0].get_texts()[0].get_text() == said
    assert "honest protocol" in figure.axes[0].get_title()
    colours = [patch.get_facecolor() for patch in figure.axes[0].patches]
    assert colours[0] not in colours[1:]
    assert len(set(colours)) == 2


def test_a_run_without_the_reports_protocol_says_so(tmp_path: Path) -> None:
    boxes = read_boxes(stored_run(tmp_path, baseline=False))
    assert boxes.baseline is None
    figure = box_plot(boxes)
    assert lines(figure, "baseline") == []
    assert "no baseline under the report's protocol in this run" in figure.axes[0].get_title()


def test_the_baseline_is_the_same_as_in_table_2(tmp_path: Path) -> None:
    """Once the figure took the member's own folds and said .500, and the table beside it .533."""
    run = stored_run(tmp_path, baseline=True)
    table = write_table_2(run, tmp_path).set_index("model")
    assert read_boxes(run).baseline == table.loc["baseline", "ours_folds_mean"]
    (legend,) = box_plot(read_boxes(run)).legends
    (row,) = [line for line in (tmp_path / "table-2.md").read_text().splitlines() if line.startswith("| baseline ")]
    assert legend.get_texts()[0].get_text().rpartition(": ")[2] == row.split(" | ")[3]


@pytest.mark.parametrize("baseline", [True, False])
def test_the_figure_is_a_picture(baseline: bool, tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    draw_classifiers(stored_run(tmp_path, baseline=baseline), path)
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width == 1350
        assert 400 < picture.height < 1400
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
    assert not list(tmp_path.glob("*.part"))


def test_a_run_without_a_comparison(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no comparison of classifiers"):
        draw_classifiers(tmp_path, tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()
