"""The learning curve: smaller sizes lie in larger ones, figures are those of a slow reference, the end is honest."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from infer.errors import UsageError
from tests.synthetic import make_patients, write_cohort
from tests.train.bags import make_bags
from tests.train_fixtures import DATE, train
from train.core.arrays import Floats, Indices
from train.core.fitting import TrainingError
from train.core.performance import Predictions
from train.data.bags import Bags
from train.evaluation.learning_curve import measure, report
from train.evaluation.learning_curve import sizes as sizes_module
from train.evaluation.learning_curve.measure import TOGETHER, Curve, curve_table, learning_curve
from train.evaluation.learning_curve.sizes import LEAST, SHARES, patients_needed, sizes_of
from train.evaluation.nested.models import clinical_logistic
from train.evaluation.nested.plan import Predictor, outer_folds
from train.evaluation.nested.protocol import gather
from train.members.candidate import Candidate
from train.members.recipes import SMALL

CPU = torch.device("cpu")


@pytest.fixture
def bags() -> Bags:
    made = make_bags([0, 1] * 40, [1] * 80)
    made.clinical[:, 1] = np.linspace(5, 12, 80)  # 31 in the grey zone
    return made


def test_each_size_is_part_of_the_next_and_judges_the_same_patients() -> None:
    labels = np.repeat([0, 1], [40, 90])
    outers = outer_folds(labels, 3, 2)
    sizes, small = sizes_of(labels, outers, 3)
    assert ([size.share for size in sizes], small) == ([0.25, 0.5, 0.75, 1.0], [])
    assert sizes[-1].outers == tuple(outers)
    assert [size.patients for size in sizes] == [26, 52, 78, 104]
    for size in sizes:
        for whole, outer in zip(outers, size.outers, strict=True):
            assert (outer.repeat, outer.number) == (whole.repeat, whole.number)
            np.testing.assert_array_equal(outer.held_out, whole.held_out)
            assert [int((labels[outer.training] == label).sum()) for label in (0, 1)] == [
                32 * size.share,
                72 * size.share,
            ]
            assert (np.diff(outer.training) > 0).all()
            assert sorted(np.concatenate(outer.inner)) == outer.training.tolist()
    for small_one, large in itertools.pairwise(sizes):
        for less, more in zip(small_one.outers, large.outers, strict=True):
            assert set(less.training) < set(more.training)
    first, second = (sizes[0].outers[number].training for number in (0, 5))
    assert set(first) != set(second)  # each repeat draws other patients


def test_sizes_with_too_few_of_a_class_are_left_out_and_the_message_says_how_many_are_needed() -> None:
    assert [patients_needed(share) for share in SHARES] == [22, 12, 8, 7]
    for reactive in range(LEAST, 30):
        labels = np.repeat([0, 1], [reactive, 60])
        outers = outer_folds(labels, 0, 1)
        enough = [share for share in SHARES if reactive >= patients_needed(share)]
        if reactive < 8:
            with pytest.raises(UsageError, match="compare two sizes") as caught:
                sizes_of(labels, outers, 0)
            assert str(caught.value) == (
                f"learning-curve: has too few patients (60 malignant and {reactive} reactive). It needs 8 of each "
                "class to compare two sizes, 22 for all 4"
            )
            continue
        sizes, small = sizes_of(labels, outers, 0)
        assert [size.share for size in sizes] == enough
        assert small == [share for share in SHARES if share not in enough]
        for size in sizes:
            assert all((labels[outer.training] == 0).sum() >= LEAST for outer in size.outers)


@dataclass(frozen=True)
class StandIn:
    """In place of a member: `gain` says how much better it tells the label for each training patient more."""

    name: str
    bags: Bags
    gain: float
    fewest: int = 0  # it cannot be trained on fewer

    def candidate(self, job: object) -> Candidate:
        noise = np.random.default_rng(sum(self.name.encode())).normal(size=len(self.bags))

        def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
            if len(training) < self.fewest:
                raise TrainingError(f"{len(training)} patients are too few")
            worth = 0.2 + self.gain * len(training)
            return np.asarray(expit(worth * (2 * self.bags.labels[asked] - 1) + noise[asked]))

        return Candidate(self.name, {"gain": self.gain}, predict)


def curve_of(bags: Bags, run: Path, *members: StandIn, repeats: int = 1) -> Curve:
    (run / "nested").mkdir(parents=True, exist_ok=True)
    with patch.object(measure, "registry", SimpleNamespace(MEMBERS=members)):
        return learning_curve(bags, run, SMALL, 3, CPU, repeats, [member.name for member in members])


@pytest.fixture
def quick_bootstrap() -> Iterator[None]:
    with patch("train.core.performance.RESAMPLES", 300):
        yield


@pytest.mark.usefixtures("quick_bootstrap")
def test_figures_are_those_of_a_slow_reference_and_the_last_size_is_the_nested_protocols(
    bags: Bags, tmp_path: Path
) -> None:
    learner = StandIn("learner", bags, 0.01)
    with patch.object(sizes_module, "SHARES", (0.5, 0.75, 1.0)):  # time
        curve = curve_of(bags, tmp_path, learner, repeats=2)
        sizes, _ = sizes_of(bags.labels, outer_folds(bags.labels, 3, 2), 3)
    rows: list[dict[str, Any]] = curve.table.to_dict("records")  # type: ignore[assignment]
    table = {(row["model"], row["figure"], row["share"]): row for row in rows}
    outers = outer_folds(bags.labels, 3, 2)
    grey = bags.clinical[:, 1] <= 7.68
    before: dict[str, float] = {}
    for size in sizes:
        nested = gather(bags, Predictor(bags, tmp_path / "own"), [learner.candidate(None)], size.outers, {})
        repeats = nested.predictions["learner"]
        expected = {
            "auc": np.mean([roc_auc_score(bags.labels, one.probability) for one in repeats]),
            "grey_zone_auc": np.mean([roc_auc_score(bags.labels[grey], one.probability[grey]) for one in repeats]),
            "balanced_accuracy": np.mean(
                [np.mean([(one.called == label)[bags.labels == label].mean() for label in (0, 1)]) for one in repeats]
            ),
        }
        for figure, value in expected.items():
            row = table["learner", figure, size.share]
            assert row["value"] == pytest.approx(value)
            assert row["low"] < row["value"] < row["high"]
            assert row["patients"] == size.patients
            if before:
                assert row["brought"] == pytest.approx(value - before[figure])
                assert row["brought_low"] <= row["brought"] <= row["brought_high"]
            else:
                assert np.isnan(row["brought"])
        before = {figure: float(value) for figure, value in expected.items()}

    done = {path.name for path in (tmp_path / "nested/predictions").iterdir()}
    gather(bags, Predictor(bags, tmp_path / "nested"), [clinical_logistic(bags), learner.candidate(None)], outers, {})
    assert {path.name for path in (tmp_path / "nested/predictions").iterdir()} == done  # nothing was trained again


@pytest.mark.usefixtures("quick_bootstrap")
def test_it_says_rising_of_a_member_that_learns_and_does_not_of_one_that_does_not(bags: Bags) -> None:
    sizes, _ = sizes_of(bags.labels, outer_folds(bags.labels, 3, 1), 3)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, len(bags)))

    def said(first: float, last: float) -> str:
        """Two repeats of a model that tells the labels better or worse from size to size."""
        found = []
        for size in sizes:
            worth = first + (last - first) * size.share
            score = worth * (2 * bags.labels - 1) + noise + rng.normal(0, 0.2, (2, len(bags)))
            found.append((size, [Predictions(bags.labels, expit(one), one > 0) for one in score]))
        return report.conclusion(curve_table({"learner": found}, bags, 0))

    rising, flat, falling = said(0, 1.6), said(0.7, 0.7), said(1.6, 0)
    assert "of learner +0." in rising
    assert rising.endswith("a rise in 2 of 2 repeats: it was still rising, so more patients may help.")
    assert flat.startswith("The last 25% of the training patients brought the AUC of learner ")
    assert flat.endswith(": more patients are not shown to help, nor is it shown that they would not.")
    assert falling.endswith(
        "a rise in 0 of 2 repeats: it fell, so these figures do not say what more patients would bring."
    )


@pytest.mark.usefixtures("quick_bootstrap")
def test_a_member_that_cannot_be_trained_on_few_patients_is_left_out_there_and_named(
    bags: Bags, tmp_path: Path
) -> None:
    choosy = StandIn("choosy", bags, 0.02, fewest=20)
    with patch.object(sizes_module, "SHARES", (0.25, 0.5, 1.0)):  # time
        curve = curve_of(bags, tmp_path, StandIn("easy", bags, 0.0), choosy)
    assert curve.left_out == ["choosy at 25%: 10 patients are too few"]
    shares = {model: part["share"].unique().tolist() for model, part in curve.table.groupby("model")}
    assert shares["easy"] == shares["clinical logistic"] == [0.25, 0.5, 1.0]
    assert shares["choosy"] == shares[TOGETHER] == [0.5, 1.0]
    first = curve.table.query("model == 'choosy' and share == .5")
    assert first["brought"].isna().all()
    text = report.write_curve(curve, tmp_path)
    assert "Left out: choosy at 25%: 10 patients are too few." in text
    assert f"the AUC of the {TOGETHER} " in text


@pytest.mark.usefixtures("quick_bootstrap")
def test_without_both_classes_in_the_grey_zone_it_has_no_figure(bags: Bags, tmp_path: Path) -> None:
    clinical = bags.clinical.copy()
    clinical[bags.labels == 1, 1] = 20
    with patch.object(sizes_module, "SHARES", (0.5, 1.0)):  # time
        curve = curve_of(replace(bags, clinical=clinical), tmp_path, StandIn("one", bags, 0.0))
    assert set(curve.table["figure"]) == {"auc", "balanced_accuracy"}


@pytest.mark.usefixtures("quick_bootstrap")
def test_on_a_cohort_it_ends_with_a_table_a_sentence_and_a_plot(tmp_path: Path) -> None:
    patients, run = tmp_path / "patients", tmp_path / "run"
    write_cohort(patients, make_patients(26, 5, images=(2, 2), malignant_share=0.5), seed=5, size=112)
    options = (*DATE, "--recipe", "small", "--repeats", 1, "--member", "imagenet")
    with patch.object(sizes_module, "SHARES", (0.25, 0.75, 1.0)):  # time
        done = train("learning-curve", patients, run, *options)
    assert done.code == 0, done.errors
    folder = run / "learning_curve"
    table = pd.read_csv(folder / "learning_curve.csv")
    assert set(table["model"]) == {"clinical logistic", "imagenet"}
    assert table["share"].unique().tolist() == [0.75, 1.0]
    lines = done.output.splitlines()
    assert all(f"{share:.0%}: " in lines[0] for share in (0.75, 1.0))
    assert "Left out: 25%: a training fold would have fewer than 5 of a class." in lines
    assert lines[-1].startswith("The last 25% of the training patients brought the AUC of imagenet ")
    assert (folder / "learning_curve.txt").read_text() == done.output
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
