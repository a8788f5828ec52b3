"""Patients of several centres: how they are read, folded, held out and compared. Without centres nothing changes."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from infer.cohort.patients import read_cohort
from infer.errors import CohortError, UsageError
from tests.synthetic import REFERENCE_DATE, SyntheticPatient, make_patients, write_cohort
from tests.train.bags import make_bags
from tests.train_fixtures import DATE, train
from train.core.arrays import Floats, Indices
from train.data.bags import Bags, load_crops
from train.data.centres import strata, stratified_by
from train.data.crops import cache_crops
from train.data.folds import assign_folds
from train.data.labelled import PLAUSIBLE
from train.evaluation.nested.centre_drift import centre_report, drift_table
from train.evaluation.nested.models import clinical_logistic
from train.evaluation.nested.plan import OUTER, Predictor, centre_folds, outer_folds
from train.evaluation.nested.protocol import gather
from train.evaluation.nested.tables import performance_table, subgroups
from train.members.candidate import Candidate
from train.members.linear import plain_logistic

TABLE = "clinical_annotation.csv"
DAY = REFERENCE_DATE
UNUSABLE = "CENTRE must have 1 to 40 printable characters and no |. Use a shorter name"
BLUER = (-25.0, -12.0, 25.0)  # RGB levels


def drawn_patients(number: int = 36, seed: int = 7) -> list[SyntheticPatient]:
    return make_patients(number, seed, images=(2, 3), malignant_share=0.5)


def by_turns(patients: list[SyntheticPatient], names: str = "ABC") -> list[str]:
    """Centres that have as many of each class."""
    seen = {0: 0, 1: 0}
    found = []
    for patient in patients:
        found.append(names[seen[patient.label] % len(names)])
        seen[patient.label] += 1
    return found


@pytest.fixture(scope="module")
def stained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three centres of 6 malignant and 6 reactive patients; that called C stains bluer."""
    folder, patients = tmp_path_factory.mktemp("stained") / "cohort", drawn_patients()
    write_cohort(folder, patients, seed=7, size=112, centres=by_turns(patients), stains={"C": BLUER})
    return folder


def with_column(folder: Path, target: Path, values: list[str] | None) -> Path:
    """A copy of a cohort whose column CENTRE holds these values, or is not there."""
    shutil.copytree(folder, target)
    with (target / TABLE).open(newline="") as file:
        rows = [row[:-1] for row in csv.reader(file)]
    if values is not None:
        rows = [[*row, value] for row, value in zip(rows, ["CENTRE", *values], strict=True)]
    with (target / TABLE).open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return target


def test_centres_are_read_and_the_cached_crops_are_those_without_them(stained: Path, tmp_path: Path) -> None:
    bags = cache_crops(stained, tmp_path / "run", DAY, None)
    assert bags.centres == tuple(by_turns(drawn_patients()))
    some = bags.of(np.array([5, 0, 2]))
    assert some.centres == tuple(bags.centres[index] for index in (5, 0, 2))
    assert cache_crops(stained, tmp_path / "run", DAY, None).centres == bags.centres  # from the cache
    assert {patient.centre for patient in read_cohort(stained, PLAUSIBLE, reference_date=DAY).patients} == {
        ""
    }  # scoring
    assert load_crops(tmp_path / "run").centres is None

    plain = cache_crops(with_column(stained, tmp_path / "plain", None), tmp_path / "other", DAY, None)
    empty = cache_crops(with_column(stained, tmp_path / "empty", [""] * 36), tmp_path / "third", DAY, None)
    assert plain.centres is None
    assert empty.centres is None
    for name in ("crops.npy", "images.csv", "patients.csv", "rejected.csv"):
        content = (tmp_path / "run/crops" / name).read_bytes()
        assert (tmp_path / "other/crops" / name).read_bytes() == content


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            ["", *"A" * 35],
            "line 2 (S001): CENTRE is empty, but other patients have one. Name a centre for each, or take the column "
            "out",
        ),
        ([*"A" * 35, "A|B"], f"line 37 (S036): {UNUSABLE}"),
        ([*"A" * 35, "x" * 41], f"line 37 (S036): {UNUSABLE}"),
        (
            ["Lyon", *["lyon"] * 35],
            "CENTRE in lines 2 and 3 differ only in upper and lower case: write each centre in one way",
        ),
    ],
)
def test_centres_that_cannot_be_used_are_named_by_line(
    stained: Path, tmp_path: Path, values: list[str], said: str
) -> None:
    cohort = with_column(stained, tmp_path / "cohort", values)
    with pytest.raises(CohortError) as caught:
        cache_crops(cohort, tmp_path / "run", DAY, None)
    assert str(caught.value).endswith(said)
    assert not (tmp_path / "run").exists()


def test_without_centres_all_folds_are_what_they_were(tmp_path: Path) -> None:
    bags = make_bags([0, 1, 1] * 12, [1] * 36)
    expected = np.empty(36, dtype=np.int64)
    splitter = StratifiedKFold(5, shuffle=True, random_state=4)
    for fold, (_, held_out) in enumerate(splitter.split(bags.clinical, bags.labels)):
        expected[held_out] = fold
    np.testing.assert_array_equal(assign_folds(bags, tmp_path, 4), expected)
    # These folds, and the digest, are from the code as it was before there were centres.
    golden = "1,3,4,1,3,0,2,3,4,3,2,0,3,4,3,0,4,2,4,4,1,0,1,0,0,0,2,1,1,2,2,3,0,4,1,2"
    lines = ["patient_id,fold", *(f"p{number},{fold}" for number, fold in enumerate(golden.split(",")))]
    assert (tmp_path / "folds.csv").read_text().splitlines() == lines
    outers = [
        [one.repeat, one.number, one.training.tolist(), one.held_out.tolist(), [part.tolist() for part in one.inner]]
        for one in outer_folds(bags.labels, 4, 2)
    ]
    known = "f73d96484752074290124b8e40d915d15f8cb2cf4725072a6f1a16b3bb2edac8"
    assert hashlib.sha256(json.dumps(outers).encode()).hexdigest() == known
    assert "centre" not in " ".join(subgroups(bags))
    assert centre_report(bags, tmp_path, 0) == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folds.csv"]


def test_folds_have_their_share_of_each_class_of_each_centre(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 0, 1], [10, 20, 15, 5])
    centres = tuple(["near"] * 30 + ["far"] * 20)
    bags = replace(make_bags(labels.tolist(), [1] * 50), centres=centres)
    folds = assign_folds(bags, tmp_path, 0)
    held_out = [folds == fold for fold in range(5)]
    held_out += [np.isin(np.arange(50), outer.held_out) for outer in outer_folds(labels, 0, 2, centres)]
    for chosen in held_out:
        found = [
            int((chosen & (labels == label) & (np.array(centres) == name)).sum())
            for name in ("near", "far")
            for label in (0, 1)
        ]
        assert found == [2, 4, 3, 1]
    for outer in outer_folds(labels, 0, 1, centres):
        for part in outer.inner:
            far = [index for index in part if centres[index] == "far"]
            assert len(far) in (5, 6)
            assert sum(labels[far]) in (1, 2)


def test_centres_too_small_for_every_fold_are_taken_together_and_said(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Any sizes at all: no stratum is smaller than the number of folds, and each has one class."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = np.repeat([0, 1], rng.integers(5, 30, 2))
        centres = rng.choice(list("ABCDE"), len(labels), p=[0.6, 0.25, 0.08, 0.05, 0.02]).tolist()
        found = strata(labels, centres, 5)
        assert np.bincount(found).min() >= 5
        assert all(len(set(labels[found == number])) == 1 for number in np.unique(found))
        for outer in outer_folds(labels, 0, 1, centres):
            assert set(labels[outer.held_out]) == {0, 1}
    labels = np.repeat([0, 1, 0, 1, 1], [20, 20, 3, 9, 2])
    centres = ["A"] * 40 + ["B"] * 12 + ["C"] * 2
    said = (
        "stratified by class and centre; fewer than 5, so not in every fold and taken together: 3 reactive of B, "
        "2 malignant of C"
    )
    assert stratified_by(labels, centres, 5) == said
    assert len(np.unique(strata(labels, centres, 5))) == 3  # C's join the malignant, B's the reactive of A
    assert stratified_by(labels, None, 5) == "stratified by class"
    bags = replace(make_bags(labels.tolist(), [1] * 54), centres=tuple(centres))
    with caplog.at_level("INFO", logger="lympho"):
        assign_folds(bags, tmp_path, 0)
    assert f"folds: {said}" in caplog.messages


def test_each_centre_is_held_out_once_a_repeat() -> None:
    labels, centres = np.tile([0, 1], 30), tuple("ABC" * 20)
    folds = centre_folds(labels, 5, 2, centres)
    assert [(outer.repeat, outer.number) for outer in folds] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for outer in folds:
        name = "ABC"[outer.number]
        assert outer.held_out.tolist() == [index for index in range(60) if centres[index] == name]
        assert outer.training.tolist() == [index for index in range(60) if centres[index] != name]
        assert sorted(np.concatenate(outer.inner)) == outer.training.tolist()
        assert len(outer.inner) == 3
    assert any((one != other).any() for one, other in zip(folds[0].inner, folds[3].inner, strict=True))


@pytest.mark.parametrize(
    ("centres", "said"),
    [
        (None, "the table has no column CENTRE, or it is empty. Name each patient's centre in it"),
        ("A" * 20, "all patients are of one centre (A). It needs two or more"),
        (
            "A" * 12 + "B" * 8,
            "without centre A only 4 malignant and 4 reactive patients are left to train on, and 5 of each class are "
            "needed. Evaluate without this option",
        ),
    ],
)
def test_what_cannot_be_held_out_is_refused(centres: str | None, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        centre_folds(np.tile([0, 1], 10), 0, 1, centres and tuple(centres))
    assert str(caught.value) == f"--leave-one-centre-out: {said}"


def on_colours(bags: Bags) -> Candidate:
    """A model of the mean colour alone."""
    colours = bags.mean_colours()

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> Floats:
        model = plain_logistic().fit(colours[training], bags.labels[training])
        return np.asarray(model.predict_proba(colours[asked])[:, 1])

    return Candidate("colours", {}, predict)


def test_where_stain_goes_with_the_label_random_folds_look_better_than_an_unseen_centre(tmp_path: Path) -> None:
    """Drawn centres, each with its own stain; A has most of the malignant patients, C most of the reactive ones."""
    patients = make_patients(90, 0, images=(2, 2), malignant_share=0.5)
    to_come = {0: iter("A" * 6 + "B" * 15 + "C" * 24), 1: iter("A" * 24 + "B" * 15 + "C" * 6)}
    stains = {"A": (-50, 0, 0), "B": (0, -50, 0), "C": (0, 0, -50)}
    centres = [next(to_come[patient.label]) for patient in patients]
    write_cohort(tmp_path / "cohort", patients, seed=0, size=112, centres=centres, stains=stains)
    bags = cache_crops(tmp_path / "cohort", tmp_path / "run", DAY, None)
    labels, member = bags.labels, on_colours(bags)
    folds = (outer_folds(labels, 0, 1, bags.centres), centre_folds(labels, 0, 1, bags.centres))
    by_random, by_centre = (gather(bags, Predictor(bags, tmp_path), [member], of, {}) for of in folds)
    areas = [roc_auc_score(labels, one.predictions["colours"][0].probability) for one in (by_random, by_centre)]
    assert areas[0] > 0.7
    assert areas[1] < 0.5

    with patch("train.core.performance.RESAMPLES", 100):
        table = performance_table(by_centre, bags, 0)
    own = table[table["group"].str.startswith("centre ") & (table["figure"] == "auc")].set_index("group")["value"]
    assert list(own.index) == ["centre A", "centre B", "centre C"]
    for name in "ABC":
        chosen = np.array(bags.centres) == name
        expected = roc_auc_score(labels[chosen], by_centre.predictions["colours"][0].probability[chosen])
        assert own[f"centre {name}"] == pytest.approx(expected)


def test_a_centre_with_too_few_of_a_class_has_no_figures_of_its_own() -> None:
    labels = np.repeat([0, 1, 0, 1], [6, 6, 4, 8])
    bags = replace(make_bags(labels.tolist(), [1] * 24), centres=tuple("A" * 12 + "B" * 12))
    assert [name for name in subgroups(bags) if name.startswith("centre")] == ["centre A"]


def test_drift_names_the_stained_centre_and_its_colours(stained: Path, tmp_path: Path) -> None:
    bags = cache_crops(stained, tmp_path / "run", DAY, None)
    table = drift_table(bags, 0)
    found = table[table["p_holm"] < 0.05]
    assert set(zip(found["centre"], found["other"], strict=True)) == {("A", "C"), ("B", "C")}
    for centre in "AB":
        measures = set(found.loc[found["centre"] == centre, "measure"])
        assert {"red", "slide_red", "blue", "slide_blue"} <= measures
        assert not {"age_years", "sex", "pictures", "lymph_count"} & measures
    of_b = {row["measure"]: row for row in table.query("centre == 'B' and other == 'C'").to_dict("records")}
    assert (of_b["red"]["direction"], of_b["blue"]["direction"]) == ("higher", "lower")
    mean, names = bags.mean_colours()[:, 0], np.array(bags.centres)
    first, second = mean[names == "B"], mean[names == "C"]
    squares = sum(((one - one.mean()) ** 2).sum() for one in (first, second))
    expected = (first.mean() - second.mean()) / np.sqrt(squares / 22)
    assert of_b["red"]["difference"] == pytest.approx(expected, rel=1e-3)
    assert 1 < of_b["red"]["low"] < of_b["red"]["difference"] < of_b["red"]["high"]

    text = centre_report(bags, tmp_path, 0)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "centres.csv"), table)
    assert "| C | 12 | 6 | " in text
    assert "- A and B differ in 0 of " in text
    listed = [line.split(" | ")[:3] for line in text.splitlines() if line.startswith(("| A | C", "| B | C"))]
    assert ["| B", "C", "red of the bare slide"] in listed
    assert len(listed) == len(found)


def test_centres_alike_do_not_drift_and_small_ones_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    pictures = torch.from_numpy(rng.integers(90, 160, (43, 112, 112, 3), dtype=np.uint8))
    bags = make_bags(rng.integers(0, 2, 43).tolist(), [1] * 43)
    bags = replace(bags, crops=pictures, centres=tuple("A" * 20 + "B" * 20 + "C" * 3))
    table = drift_table(bags, 0)
    assert (set(table["centre"]), set(table["other"])) == ({"A"}, {"B"})
    assert (table["p_holm"] > 0.05).all()
    constant = table[table["measure"] == "pictures"]
    assert (constant[["difference", "low", "high"]] == 0).all(axis=None)
    text = centre_report(bags, tmp_path, 0)
    assert f"- A and B differ in 0 of {len(table)} measures.\n\nNot compared, fewer than 5 patients: C.\n" in text
    alone = centre_report(replace(bags, centres=tuple("A" * 43)), tmp_path, 0)
    assert "| A | 43 | " in alone
    assert pd.read_csv(tmp_path / "centres.csv").empty


def test_the_report_says_what_was_held_out_and_has_figures_by_centre(stained: Path, tmp_path: Path) -> None:
    options = (*DATE, "--recipe", "small", "--protocol", "nested", "--repeats", "1", "--leave-one-centre-out")
    run = tmp_path / "run"
    with patch("train.core.performance.RESAMPLES", 100):
        done = train("evaluate", stained, run, *options, "--member", "imagenet")
    assert done.code == 0, done.errors
    folder = run / "nested_centres_imagenet"
    assert done.output == (folder / "nested.md").read_text() + "\n"
    assert (
        "- protocol: each of 3 centres held out in turn, in place of outer folds, 3 inner ones, repeats: 1"
        in done.output
    )
    table = pd.read_csv(folder / "performance.csv")
    assert [group for group in table["group"].unique() if group.startswith("centre")] == [
        "centre A",
        "centre B",
        "centre C",
    ]
    assert "| centre C: 12, 6 malignant | " in done.output
    assert "### Drift between centres" in done.output
    assert (folder / "centres.csv").exists()

    plain = with_column(stained, tmp_path / "plain", None)
    refused = train("evaluate", plain, tmp_path / "other", *options)
    assert (refused.code, "--leave-one-centre-out: the table has no column CENTRE" in refused.errors) == (2, True)


def test_random_folds_stay_the_protocol_where_nobody_asks_for_centres(tmp_path: Path) -> None:
    labels = np.tile([0, 1], 20)
    bags = replace(make_bags(labels.tolist(), [1] * 40), centres=tuple("AB" * 20))
    outers = outer_folds(labels, 0, 1, bags.centres)
    assert len(outers) == OUTER
    nested = gather(bags, Predictor(bags, tmp_path), [clinical_logistic(bags)], outers, {})
    assert not np.isnan(nested.predictions["clinical logistic"][0].probability).any()
