"""Validation: figures against scikit-learn and by hand, whose patients they are, and what it says of them."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.metrics import brier_score_loss, roc_auc_score

from infer.bundle.load import load_bundle
from infer.bundle.manifest import OperatingPoint
from infer.errors import CohortError, UsageError
from infer.options import Options
from tests.crops import read_crop
from tests.infer.manifests import make_manifest
from tests.infer.runs import TINY, tiny_manifest, write_bundle
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort
from tests.train.validated import drawn
from train.cli.commands import cli
from train.core.performance import Estimate, Predictions, resamples
from train.core.texts import number
from train.data.seen import packed
from train.data.whose_pictures import SWAPPED, whose_pictures
from train.evaluation.validation.figures import (
    BLIND,
    CLINICAL,
    ENSEMBLE,
    GAIN,
    HIGH,
    LOW,
    calibration_curve,
    decision_curve,
    figures_of,
)
from train.evaluation.validation.intervals import at_the_ends, wilson
from train.evaluation.validation.page import Who, render
from train.evaluation.validation.said import EXTERNAL, OVERLAP, TRAINING, UNKNOWN, Said, say
from train.evaluation.validation.scored import NotScored, Scored
from train.evaluation.validation.validate import validate

PATIENTS = 16


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.core.performance.RESAMPLES", 300)


POINT = OperatingPoint(0.4, 0.6)  # of make_manifest


def said_of(scored: Scored) -> Said:
    return say(scored, figures_of(scored, make_manifest()))


def value(table: pd.DataFrame, **wanted: str) -> float:
    rows = table[np.logical_and.reduce([table[name] == cell for name, cell in wanted.items()])]
    assert len(rows) == 1
    return float(rows["value"].iloc[0])


def test_figures_by_scikit_learn_and_by_hand() -> None:
    scored = drawn()
    figures = figures_of(scored, make_manifest())
    of = {"model": ENSEMBLE, "group": "all"}
    assert value(figures.performance, figure="auc", **of) == pytest.approx(
        roc_auc_score(scored.labels, scored.probability)
    )
    assert value(figures.performance, figure="brier_score", **of) == pytest.approx(
        brier_score_loss(scored.labels, scored.probability)
    )
    malignant, called = scored.labels == 1, scored.probability >= POINT.refer_high
    reactive = scored.probability < POINT.refer_low
    expected = {
        "malignant called malignant": called[malignant].mean(),
        "malignant called reactive": reactive[malignant].mean(),
        "reactive called reactive": reactive[~malignant].mean(),
        "reactive called malignant": called[~malignant].mean(),
        "called malignant who are": malignant[called].mean(),
        "called reactive who are": (~malignant)[reactive].mean(),
        "referred": (~called & ~reactive).mean(),
        "flow cytometries avoided": reactive.mean(),
    }
    found = dict(zip(figures.points["figure"], figures.points["value"], strict=True))
    assert found == pytest.approx(expected)
    assert (figures.performance["low"] <= figures.performance["value"] + 1e-9).all()
    assert (figures.performance["high"] >= figures.performance["value"] - 1e-9).all()


def test_subgroups_are_of_these_patients_and_only_where_both_classes_are_there() -> None:
    scored = drawn()
    performance = figures_of(scored, make_manifest()).performance
    of = performance[(performance["group"] == "women") & (performance["model"] == ENSEMBLE)]
    women = scored.clinical[:, 0] == 1
    assert set(of["patients"]) == {int(women.sum())}
    assert value(of, figure="auc") == pytest.approx(roc_auc_score(scored.labels[women], scored.probability[women]))
    assert "unlike the training patients" not in set(performance["group"])
    few = dataclasses.replace(scored, held_up=np.arange(200) < 3)
    assert "unlike the training patients" not in set(figures_of(few, make_manifest()).performance["group"])


def test_each_centre_is_a_group() -> None:
    scored = drawn()
    centres = tuple("Lyon" if index < 120 else "Brest" for index in range(200))
    performance = figures_of(dataclasses.replace(scored, centres=centres), make_manifest()).performance
    lyon = np.arange(200) < 120
    found = value(performance, model=ENSEMBLE, group="centre Lyon", figure="auc")
    assert found == pytest.approx(roc_auc_score(scored.labels[lyon], scored.probability[lyon]))
    assert "centre Brest" in set(performance["group"])


def test_who_is_held_up_is_referred_and_still_ranked() -> None:
    scored = drawn()
    held = dataclasses.replace(scored, held_up=np.ones(200, np.bool_))
    one, other = (figures_of(of, make_manifest()) for of in (scored, held))
    assert value(other.points, figure="referred") == 1
    of = {"model": ENSEMBLE, "group": "all", "figure": "auc"}
    assert value(other.performance, **of) == value(one.performance, **of)
    assert "200 of 200 patients are unlike the training patients" in " ".join(said_of(held).sentences)


def test_a_validation_says_on_how_many_the_members_disagree() -> None:
    apart = dataclasses.replace(drawn(), disagree=np.arange(200) < 7)
    said = "On 7 of 200 patients the members disagree more than they did on 95% of the training patients."
    assert said in " ".join(said_of(apart).sentences)
    assert "members disagree" not in " ".join(said_of(drawn()).sentences)


def test_the_models_of_sex_age_and_count_have_not_seen_whom_they_judge() -> None:
    """With labels that nothing tells, a model that had would rank above chance."""
    aucs = []
    for seed in range(8):
        scored = drawn(80, clinical_skill=0.0, seed=seed)
        performance = figures_of(scored, make_manifest()).performance
        aucs.append(value(performance, model=CLINICAL, group="all", figure="auc"))
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    ("scored", "sentence"),
    [
        (drawn(skill=3.0, clinical_skill=0.5), "So it ranks better than they do."),
        (drawn(60, skill=0.8, clinical_skill=0.5), "Whether pictures help here is not shown."),
        (drawn(skill=0.05, clinical_skill=3.0), "So it ranks worse than they do: do not use it here."),
        (dataclasses.replace(drawn(), labels=np.random.default_rng(1).permutation(drawn().labels)), "is not shown."),
    ],
    ids=["much", "little", "harm", "permuted labels"],
)
def test_what_is_said_of_ranking(scored: Scored, sentence: str) -> None:
    ranking = said_of(scored).sentences[0]
    assert ranking.endswith(sentence)
    assert re.match(
        r"AUC \.\d{3} \[\.\d{3}, 1?\.\d{3}\]\. Sex, age and count alone, fitted on these patients: ", ranking
    )


def moved(by: float, times: float = 1.0) -> Scored:
    scored = drawn(400)
    logit = np.log(scored.probability / (1 - scored.probability)) * times + by
    return dataclasses.replace(scored, probability=1 / (1 + np.exp(-logit)))


@pytest.mark.parametrize(
    ("scored", "sentence"),
    [
        (moved(0), "No miscalibration is shown"),
        (moved(1.5), "The probabilities are too high on average here"),
        (moved(-1.5), "The probabilities are too low on average here"),
        (moved(0, 2.5), "The probabilities are too extreme here"),
        (moved(0, 0.3), "The probabilities are not extreme enough here"),
    ],
)
def test_what_is_said_of_calibration(scored: Scored, sentence: str) -> None:
    assert said_of(scored).sentences[1].startswith(f"{sentence}: calibration in the large ")


def some(known: int) -> Any:
    return np.arange(200) < known


@pytest.mark.parametrize(
    ("changes", "kind", "whose"),
    [
        ({}, EXTERNAL, "None of the 200 patients"),
        ({"known": None}, UNKNOWN, "does not tell which pictures"),
        ({"known": some(3)}, OVERLAP, "3 of 200 patients have pictures"),
        ({"known": some(200)}, TRAINING, "All of these patients"),
        ({"same_table": True}, TRAINING, "The table is the one"),
        ({"same_table": True, "known": None}, TRAINING, "The table is the one"),
    ],
)
def test_external_is_said_only_of_patients_who_were_not_trained_on(
    changes: dict[str, Any], kind: str, whose: str
) -> None:
    said = said_of(dataclasses.replace(drawn(), **changes))
    assert said.kind == kind
    assert whose in said.whose
    assert ("external" in f"{said.kind} {said.whose}".lower()) == (kind in (EXTERNAL, OVERLAP))


def test_nobody_is_dropped_silently() -> None:
    lost = (NotScored("P1", 1, "failed", "folder_missing"), NotScored("P2", 0, "refused", "count_missing"))
    said = " ".join(said_of(dataclasses.replace(drawn(), not_scored=lost, without_label=7)).sentences)
    assert "2 labelled patients have no probability, 1 of them malignant (folder_missing 1, count_missing 1)" in said
    assert "7 patients have no label and are not judged." in said


def test_too_few_of_a_class_for_a_comparison() -> None:
    scored = drawn(30)
    labels = np.zeros(30, np.int64)
    labels[:4] = 1
    said = said_of(dataclasses.replace(scored, labels=labels))
    assert "too few patients of one class to compare it with sex, age and count alone" in said.sentences[0]


def test_a_share_of_nobody_or_everybody_has_an_interval() -> None:
    """The bootstrap of 20 of 20 is 20 of 20, whatever is drawn."""
    assert at_the_ends(Estimate(1.0, 1.0, 1.0), 20).low == pytest.approx(0.8389, abs=5e-5)
    assert at_the_ends(Estimate(0.0, 0.0, 0.0), 20).high == pytest.approx(0.1611, abs=5e-5)
    assert at_the_ends(Estimate(0.5, 0.4, 0.6), 20) == Estimate(0.5, 0.4, 0.6)
    assert at_the_ends(Estimate(1.0, 1.0, 1.0), 0) == Estimate(1.0, 1.0, 1.0)
    sure = dataclasses.replace(drawn(), probability=np.where(drawn().labels == 1, 0.99, 0.01))
    figures = figures_of(sure, make_manifest())
    malignant = int(sure.labels.sum())
    row = figures.points[figures.points["figure"] == "malignant called reactive"].iloc[0]
    assert (row["value"], row["high"]) == (0, pytest.approx(wilson(0.0, malignant)[1]))
    of = figures.performance
    row = of[(of["model"] == ENSEMBLE) & (of["group"] == "all") & (of["figure"] == "sensitivity")].iloc[0]
    assert (row["value"], row["low"]) == (1, pytest.approx(wilson(1.0, malignant)[0]))


def test_wilsons_interval() -> None:
    """Golden: Newcombe (1998), table I: 81 of 263 and 0 of 20."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_the_calibration_curve_by_hand() -> None:
    labels = np.array([0, 0, 1, 0, 1, 1, 0, 1, 1, 1])
    probability = np.linspace(0.05, 0.95, 10)
    curve = calibration_curve(labels, probability)
    assert curve["predicted"].tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert curve["malignant"].tolist() == [0, 0.5, 1, 0.5, 1]


def test_the_decision_curve_and_its_intervals_patient_by_patient() -> None:
    rng = np.random.default_rng(4)
    labels = rng.permutation(np.repeat([0, 1], 15))
    by = {name: np.clip(labels * 0.3 + rng.random(30) * 0.7, 0, 1) for name in (ENSEMBLE, CLINICAL)}
    weights = resamples(labels, 0, 40, by_class=False)
    models = {name: [Predictions(labels, of, of >= 0.5)] for name, of in by.items()}
    curve = decision_curve(models, weights)
    for row in (0, 34, 60, 98):
        threshold = curve["threshold"][row]

        def benefit(name: str, times: Any, threshold: float = threshold) -> float:
            gained = 0.0
            for label, probability, drawn in zip(labels, by[name], times, strict=True):
                if probability >= threshold:
                    gained += drawn if label else -drawn * threshold / (1 - threshold)
            return float(gained / sum(times))

        once = np.ones(30)
        drawn = [[benefit(name, times) for times in weights] for name in (ENSEMBLE, CLINICAL)]
        assert curve[ENSEMBLE][row] == pytest.approx(benefit(ENSEMBLE, once))
        assert (curve[LOW][row], curve[HIGH][row]) == pytest.approx(tuple(np.percentile(drawn[0], [2.5, 97.5])))
        assert curve[GAIN][row] == pytest.approx(benefit(ENSEMBLE, once) - benefit(CLINICAL, once))
        gains = np.percentile(np.subtract(drawn[0], drawn[1]), [2.5, 97.5])
        assert (curve[f"{GAIN}, low"][row], curve[f"{GAIN}, high"][row]) == pytest.approx(tuple(gains))
    assert list(decision_curve(models)) == ["threshold", "everybody", "nobody", ENSEMBLE, CLINICAL]


def test_patients_needed_shrink_the_interval() -> None:
    """Four times the patients, half the interval: so as many as were needed before."""
    needed = [figures_of(drawn(patients), make_manifest()).needed["auc"] for patients in (150, 600)]
    assert needed[1] == pytest.approx(needed[0], rel=0.6)


@pytest.mark.parametrize(
    ("given", "text"), [(0.5, ".500"), (1.0, "1.000"), (-0.25, "-.250"), (12.5, "12.500"), (-3.0, "-3.000")]
)
def test_numbers_in_sentences(given: float, text: str) -> None:
    assert number(given) == text


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation") / "patients"
    write_cohort(folder, make_patients(PATIENTS, seed=5, images=(10, 12)), seed=5, size=112)
    return folder


@pytest.fixture
def cohort(pristine: Path, tmp_path: Path) -> Path:
    """A copy whose table the test may change."""
    folder = tmp_path / "patients"
    folder.mkdir()
    for path in pristine.iterdir():
        if path.is_dir():
            (folder / path.name).mkdir()
            for picture in path.iterdir():
                (folder / path.name / picture.name).hardlink_to(picture)
        else:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def validated(cohort: Path, out: Path, bundle: Path = TINY) -> Said:
    return validate(
        load_bundle(bundle), Options(cohort, out, bundle=bundle, device="cpu", reference_date=REFERENCE_DATE)
    )


def edited(cohort: Path, change: Callable[[pd.DataFrame], Any]) -> None:
    table = pd.read_csv(cohort / "clinical_annotation.csv", dtype=str, keep_default_na=False)
    change(table)
    table.to_csv(cohort / "clinical_annotation.csv", index=False)


def test_a_whole_validation(cohort: Path, tmp_path: Path) -> None:
    """What stands in its files is what scoring said, patient by patient."""

    def spoil(table: pd.DataFrame) -> None:
        table.loc[0, "LYMPH_COUNT"] = ""
        table.loc[1, "LABEL"] = "-1"

    edited(cohort, spoil)
    out = tmp_path / "out"
    runner = CliRunner().invoke(
        cli, ["validate", str(TINY), str(cohort), str(out), "--reference-date", REFERENCE_DATE.isoformat()]
    )
    assert (runner.exit_code, UNKNOWN in runner.output, "validation.html" in runner.output) == (0, True, True)
    scored = pd.read_csv(out / "scored/predictions.csv", dtype={"patient_id": str}).set_index("patient_id")
    table = pd.read_csv(out / "patients.csv", dtype={"patient_id": str}).set_index("patient_id")
    labels = pd.read_csv(cohort / "clinical_annotation.csv", dtype={"ID": str}).set_index("ID")["LABEL"]
    assert len(table) == PATIENTS - 1
    judged = table[table["probability"].notna()]
    assert table["reason"].dropna().tolist() == ["count_missing"]
    assert judged["label"].to_dict() == labels[judged.index].to_dict()
    expected = scored.loc[judged.index, "probability_malignant"]
    np.testing.assert_allclose(judged["probability"], expected, atol=1e-6)
    record = json.loads((out / "validation.json").read_text())
    assert (record["patients"], record["not_scored"], record["without_label"]) == (PATIENTS - 2, ["count_missing"], 1)
    auc = next(row for row in record["performance"] if row["model"] == ENSEMBLE and row["figure"] == "auc")["value"]
    assert auc == pytest.approx(roc_auc_score(judged["label"], judged["probability"]))
    page = (out / "validation.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    validated(cohort, out)  # again, into the same folder


def test_the_blind_twin_is_a_cohort_whose_folders_were_exchanged(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = ["validate", str(TINY), str(cohort), str(out), "--reference-date", REFERENCE_DATE.isoformat(), "--swapped"]
    runner = CliRunner().invoke(cli, line)
    assert (runner.exit_code, "By other patients' pictures its AUC is" in runner.output) == (0, True), runner.output
    table = pd.read_csv(cohort / "clinical_annotation.csv", dtype=str)
    names = table["ID"].tolist()
    lenders = whose_pictures(np.arange(len(names)), names)[SWAPPED]
    exchanged = tmp_path / "exchanged"
    exchanged.mkdir()
    (exchanged / "clinical_annotation.csv").write_bytes((cohort / "clinical_annotation.csv").read_bytes())
    for name, lender in zip(names, lenders, strict=True):
        shutil.copytree(cohort / names[lender], exchanged / name)
    of_exchanged = validated(exchanged, tmp_path / "other")
    assert of_exchanged.kind == UNKNOWN
    ours, theirs = (json.loads((folder / "validation.json").read_text()) for folder in (out, tmp_path / "other"))

    def figures(record: dict[str, Any], model: str) -> dict[str, Any]:
        rows = record["performance"]
        return {row["figure"]: row["value"] for row in rows if row["model"] == model and row["group"] == "all"}

    blind, expected = figures(ours, BLIND), figures(theirs, ENSEMBLE)
    assert blind == pytest.approx({name: expected[name] for name in blind})
    assert blind != pytest.approx({name: figures(ours, ENSEMBLE)[name] for name in blind})


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [(0.9, "So it sees something in these pictures."), (0.0, "That it sees anything here is not shown.")],
)
def test_what_is_said_of_the_blind_twin(seen: float, sentence: str) -> None:
    scored = drawn()
    noise = np.random.default_rng(1).random(len(scored.labels))
    swapped = scored.probability * (1 - seen) + noise * seen
    said = say(scored, figures_of(scored, make_manifest(), swapped=swapped))
    assert said.sentences[1].startswith("By other patients' pictures its AUC is ")
    assert said.sentences[1].endswith(sentence)


def test_whose_pictures_they_are(cohort: Path, tmp_path: Path) -> None:
    def with_seen(name: str, patients: list[str]) -> Path:
        manifest = tiny_manifest()
        pictures = [path for patient in patients for path in sorted((cohort / patient).iterdir())]
        crops = [read_crop(path, cohort.resolve(), 112) for path in pictures] or [np.zeros((112, 112, 3), np.uint8)]
        manifest["reference"]["seen"] = packed(crops, manifest["provenance"]["table_sha256"])
        return write_bundle(tmp_path / name, manifest)

    everybody = [path.name for path in cohort.iterdir() if path.is_dir()]
    kinds = [
        validated(cohort, tmp_path / f"{name} out", with_seen(name, patients)).kind
        for name, patients in {"none": [], "one": ["S003"], "all": everybody}.items()
    ]
    assert kinds == [EXTERNAL, OVERLAP, TRAINING]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda table: table.pop("LABEL"), r"has no column LABEL"),
        (lambda table: table.__setitem__("LABEL", "1"), r"no reactive patient has a probability"),
        (lambda table: table.__setitem__("LABEL", "0"), r"no malignant patient has a probability"),
        (lambda table: table.__setitem__("LABEL", "CLL"), r"LABEL is none of 1, 0, -1 in line 2, 3, .* and 6 more"),
    ],
)
def test_labels_that_cannot_be_used(
    cohort: Path, tmp_path: Path, change: Callable[[pd.DataFrame], Any], error: str
) -> None:
    edited(cohort, change)
    with pytest.raises(CohortError, match=error):
        validated(cohort, tmp_path / "out")


def test_an_out_that_holds_something_else_stays(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("x")
    with pytest.raises(UsageError, match="holds something else than a validation"):
        validated(cohort, tmp_path)
    with pytest.raises(UsageError, match="ages need --reference-date"):
        validate(load_bundle(TINY), Options(cohort, tmp_path / "out", bundle=TINY, device="cpu"))


def test_whatever_is_put_into_the_page_is_text() -> None:
    scored = drawn()
    said = Said("<img src=x>", "<b>", ("<script>",))
    page = render(said, figures_of(scored, make_manifest()), [("Bundle", "<i>")], Who([], [["<u>"]]))
    assert all(f"&lt;{tag}" in page for tag in ("img src=x", "b&gt;", "script", "i&gt;", "u&gt;"))
    assert not any(f"<{tag}>" in page for tag in ("script", "img src=x", "i"))
