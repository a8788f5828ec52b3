"""Drift in a run: drift.json, the history, the exit code; and what is measured on a patient, by value."""

import datetime as dt
import json
import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from infer.bundle.load import load_bundle
from infer.errors import OutputError, UsageError
from infer.output.kept import KEPT, read_results
from infer.output.names import RECORD
from infer.output.watch import DRIFT
from infer.pictures.look import look
from infer.scoring.result import PatientResult
from tests.infer.runs import RESULT_FILES, TINY, Outcome, cell, cut, link_cohort, names, score
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort

MANY = 22  # enough to tell


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 22 patients; drawn cells are bluer and more alike than real ones."""
    folder = tmp_path_factory.mktemp("night") / "patients"
    write_cohort(folder, make_patients(MANY, seed=5, images=(10, 11)), seed=5, labels=False, size=128)
    return folder


def drift_of(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((outcome.out / DRIFT).read_text(encoding="utf-8"))
    return found


def kept(outcome: Outcome) -> dict[str, PatientResult]:
    results = read_results(outcome.out / KEPT, len(outcome.predictions))
    return {result.patient_id: result for result in results}


def test_a_few_patients_are_too_few_to_tell(plain: Outcome) -> None:
    drift = drift_of(plain)
    assert (drift["enough"], drift["changed"], drift["nights"]) == (False, False, None)
    sentence = "6 patients: too few to tell (20 needed)."
    assert plain.record["drift"] == {"changed": False, "sentences": [sentence]}


def test_drawn_patients_are_not_like_the_training_patients(night: Path, tmp_path: Path) -> None:
    told = score(night, tmp_path / "told", bundle=TINY)
    drift = drift_of(told)
    assert (told.code, drift["changed"]) == (0, True)
    changed = [key for key, one in drift["measures"].items() if one["changed"]]
    assert "blue" in changed
    assert told.record["drift"]["sentences"] == [drift["sentence"]]
    assert drift["sentence"].startswith("Tonight's patients differ from the training patients: ")
    assert drift["sentence"] in (told.out / "run.log").read_text(encoding="utf-8")
    failed = score(night, tmp_path / "failed", bundle=TINY, drift="fail")
    assert failed.code == 3
    assert failed.record["exit_code"] == 3
    assert failed.csv_bytes == told.csv_bytes


def test_the_means_are_those_of_the_results(night: Path, tmp_path: Path) -> None:
    outcome = score(night, tmp_path / "out", bundle=TINY)
    measures, results = drift_of(outcome)["measures"], kept(outcome).values()
    ages = [result.measures["age_years"] for result in results]
    assert measures["age_years"]["median"] == pytest.approx(np.median(ages))
    malignant = [result.scores.decision == "malignant" for result in results if result.scores]
    assert measures["decision_malignant"]["mean"] == pytest.approx(np.mean(malignant))
    point = load_bundle(TINY).manifest.ensemble.operating_points["balanced"]
    training = load_bundle(TINY).manifest.reference.measures["probability"]
    share = np.mean([probability >= point.refer_high for probability in training])
    assert measures["decision_malignant"]["training_mean"] == pytest.approx(share)


def test_nights_add_up_and_nobody_counts_twice(night: Path, tmp_path: Path) -> None:
    """Neither on the next day, when all are a day older, nor after a rerun with a patient who had failed."""
    history = tmp_path / "history.jsonl"
    most = link_cohort(night, tmp_path / "most")
    (most / "S022").rename(tmp_path / "away")
    first = score(most, tmp_path / "a", bundle=TINY, history=history)
    assert (first.code, drift_of(first)["nights"]["patients"]) == (3, MANY - 1)
    (tmp_path / "away").rename(most / "S022")
    again = score(most, tmp_path / "b", bundle=TINY, history=history)
    assert drift_of(again)["nights"]["patients"] == MANY - 1  # one more is too few to count
    tomorrow = REFERENCE_DATE + dt.timedelta(days=1)
    older = score(most, tmp_path / "c", bundle=TINY, history=history, reference_date=tomorrow)
    assert drift_of(older)["nights"]["patients"] == MANY - 1
    write_cohort(tmp_path / "others", make_patients(7, seed=6, images=(10, 11)), seed=6, labels=False, size=128)
    others = score(tmp_path / "others", tmp_path / "d", bundle=TINY, history=history)
    assert drift_of(others)["nights"]["patients"] == MANY - 1 + 7
    assert len(others.record["drift"]["sentences"]) == 2
    lines = [json.loads(line) for line in history.read_text(encoding="ascii").splitlines()]
    assert [line["patients"] for line in lines] == [MANY - 1, 1, 7]
    assert lines[1]["measures"] == {}  # a sum over one patient would be the patient's value
    assert "S001" not in history.read_text(encoding="ascii")


def test_a_history_that_cannot_be_written_does_not_cost_the_results(night: Path, tmp_path: Path) -> None:
    history, out = tmp_path / "history.jsonl", tmp_path / "out"

    def full(*_: Any) -> None:
        raise OutputError(f"{history}: the run's line cannot be written (No space left on device)")

    with (
        patch("infer.output.watch.append_history", full),
        pytest.raises(OutputError, match="tables are complete: only"),
    ):
        score(night, out, bundle=TINY, history=history)
    assert names(out) == RESULT_FILES
    assert not history.exists()


def test_a_resumed_run_says_the_same_and_has_one_line(night: Path, tmp_path: Path) -> None:
    whole = score(night, tmp_path / "whole", bundle=TINY, history=tmp_path / "one.jsonl")
    history = tmp_path / "two.jsonl"
    cut(night, tmp_path / "out", bundle=TINY, history=history)
    assert not history.exists()
    resumed = score(night, tmp_path / "out", bundle=TINY, history=history)
    assert resumed.record["kept_from_earlier_starts"] > 0
    one, two = drift_of(whole), drift_of(resumed)
    for record in (one, two):
        for measure in record["nights"]["measures"].values():
            measure["since"] = bool(measure["since"])  # the time of the start
        record["nights"]["sentence"] = ""
    assert one == two
    assert len(history.read_text(encoding="ascii").splitlines()) == 1


@pytest.mark.parametrize("kind", ["damaged", "inside", "own"])
def test_a_history_that_cannot_be_one_stops_the_run_before_it_scores(night: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    history = {"damaged": tmp_path / "h", "inside": night / "h", "own": out / RECORD}[kind]
    if kind == "damaged":
        history.write_text("{}\n", encoding="ascii")
    said = {
        "damaged": f"{history}, line 1: is damaged",
        "inside": "lies inside the cohort",
        "own": "every run replaces",
    }
    with pytest.raises(UsageError, match=said[kind]):
        score(night, out, bundle=TINY, history=history)
    assert not out.exists()


def test_what_is_measured_on_a_patient_by_hand(plain: Outcome, pristine: Path) -> None:
    result = kept(plain)["S002"]
    of_pictures = [look(path, pristine.resolve(), 112).measures for path in sorted((pristine / "S002").iterdir())]
    classes = [int(row["cell_class"]) for row in plain.images if row["patient_id"] == "S002"]
    expected: dict[str, Any] = {
        "sex": float(cell(pristine, "S002", "GENDER") == "F"),
        "lymph_count": float(cell(pristine, "S002", "LYMPH_COUNT")),
        "age_years": result.age_years,
        "pictures": len(of_pictures),
        **{name: np.mean([of[name] for of in of_pictures]) for name in of_pictures[0]},
        **{f"share_{number}": classes.count(number) / len(classes) for number in range(15)},
    }
    features = {name: result.measures[name] for name in ("features_within", "features_outside")}
    assert min(features.values()) > 0
    assert result.measures == pytest.approx(expected | features, abs=1e-9)


def test_sex_age_and_count_alone_by_hand(plain: Outcome) -> None:
    result = kept(plain)["S002"]
    model = json.loads((Path("infer/reference") / "manifest.json").read_text())["reference"]["clinical"]
    of = result.measures
    odds = model["female"] * of["sex"] + model["log_count"] * math.log(of["lymph_count"])
    odds += model["age_years"] * of["age_years"] + model["intercept"]
    assert result.scores is not None
    assert result.scores.clinical == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-12)
