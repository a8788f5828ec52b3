"""A patient unlike the training patients: by hand, by resampling, and what a run makes of one."""

import io
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image, ImageFilter

from infer.bundle.reference import Span, Usual
from infer.cohort.plausible import Range
from infer.scoring import cohort as cohort_module
from infer.scoring.unusual import Likeness, Ood, deviation, likeness, p_value
from tests.infer.runs import OF_EVERYBODY, TINY, Outcome, replace_picture, score, tiny_manifest, write_bundle

SPANS = {"sharpness": Span(0.5, 1.0, 2.0), "red": Span(100.0, 180.0, 190.0), "jpeg_quality": Span(85.0, 95.0, 195.0)}
RANGES = {"age_years": Range(20.0, 95.0), "lymph_count": Range(2.0, 300.0)}
TYPICAL = {"age_years": 70.0, "lymph_count": 8.0}
USUAL = Usual(limit=0.25, spans=SPANS, ranges=RANGES, scores=[0.5, 1.0, 1.0, 1.5, 2.0, 2.5, 3.0])


def test_deviations_by_hand() -> None:
    span = Span(0.5, 1.0, 2.0)
    found = [deviation(value, span) for value in (1.0, 2.0, 4.0, 0.5, 0.25)]
    assert found == [0.0, 1.0, 3.0, -1.0, -1.5]


@pytest.mark.parametrize(
    ("of", "p"), [(0.0, 8 / 8), (0.5, 8 / 8), (0.6, 7 / 8), (1.0, 7 / 8), (3.0, 2 / 8), (3.1, 1 / 8)]
)
def test_p_by_hand(of: float, p: float) -> None:
    """This patient and those of seven others with a score as large, of eight."""
    assert p_value(of, USUAL) == p


@pytest.mark.parametrize(
    ("measures", "p", "unusual"),
    [
        ({"sharpness": 1.0, "red": 180.0}, 1.0, ()),
        ({"sharpness": 4.0, "red": 180.0}, 2 / 8, ()),  # not below the limit
        ({"sharpness": 4.5, "red": 180.0}, 1 / 8, ("sharpness high",)),
        ({"sharpness": 4.5, "red": 230.0}, 1 / 8, ("red high", "sharpness high")),
        ({"sharpness": -1.0, "red": 180.0, "jpeg_quality": 50.0}, 1 / 8, ("jpeg_quality low", "sharpness low")),
        ({"sharpness": 1.0, "red": 180.0, "jpeg_quality": 100.0}, 1.0, ()),
        ({"blue": 1e9}, 1.0, ()),  # not judged
        ({"age_years": 20.0, "lymph_count": 300.0}, 1.0, ()),
        ({"age_years": 3.0}, 1 / 8, ("age_years low",)),
        ({"age_years": 96.0, "lymph_count": 0.9}, 1 / 8, ("age_years high", "lymph_count low")),
        ({"lymph_count": 600.0, "sharpness": 4.5}, 1 / 8, ("lymph_count high", "sharpness high")),
        ({}, 1.0, ()),
    ],
)
def test_a_patient_by_hand(measures: dict[str, float], p: float, unusual: tuple[str, ...]) -> None:
    assert likeness(TYPICAL | measures, USUAL) == Likeness(p, unusual)


def test_something_is_named_whenever_p_is_below_the_limit_and_never_otherwise() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        found = likeness(TYPICAL | {"sharpness": rng.normal(1, 1.5), "red": rng.normal(180, 40)}, USUAL)
        assert bool(found.unusual) == (found.p < USUAL.limit)


def blurred(data: bytes) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.filter(ImageFilter.GaussianBlur(2)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def with_blur(cohort: Path) -> Path:
    """S001's pictures are out of focus."""
    for path in (cohort / "S001").iterdir():
        replace_picture(path, blurred(path.read_bytes()))
    return cohort


@pytest.fixture
def sharp(cohort: Path, tmp_path: Path) -> Outcome:
    return score(cohort, tmp_path / "sharp", bundle=TINY)


def others(outcome: Outcome) -> dict[str, dict[str, str]]:
    return {patient: row for patient, row in outcome.predictions.items() if patient != "S001"}


def test_by_default_nobody_unusual_is_decided(sharp: Outcome, with_blur: Path, tmp_path: Path) -> None:
    before = sharp.predictions["S001"]
    assert (before["decision"] != "refer", float(before["ood_p"]) > 0.03, before["unusual"]) == (True, True, "")
    outcome = score(with_blur, tmp_path / "out", bundle=TINY)
    row = outcome.predictions["S001"]
    assert (row["status"], row["decision"], row["ood_p"], row["unusual"]) == (
        "scored",
        "refer",
        "0.0076",
        "sharpness low",
    )
    assert 0 < float(row["probability_malignant"]) < 1  # the numbers stand
    assert others(outcome) == others(sharp)
    assert outcome.record["patients_unlike_training"] == 1
    assert outcome.record["unlike_training"] == ["S001"]
    assert outcome.record["unusual_measures"] == {"sharpness low": 1}
    log = (outcome.out / "run.log").read_text()
    assert "S001: unlike the training patients. predictions.csv says in what" in log
    assert "patients unlike the training patients: 1 (sharpness low: 1)." in log


def test_warn_changes_no_number_and_no_decision(with_blur: Path, tmp_path: Path) -> None:
    referred = score(with_blur, tmp_path / "refer", bundle=TINY)
    warned = score(with_blur, tmp_path / "warn", bundle=TINY, ood="warn")
    row, expected = warned.predictions["S001"], referred.predictions["S001"]
    assert row["decision"] in ("malignant", "reactive")
    assert row | {"decision": "refer"} == expected
    assert warned.record["unlike_training"] == ["S001"]
    assert others(warned) == others(referred)


def test_refuse_leaves_the_numbers_out(with_blur: Path, tmp_path: Path) -> None:
    outcome = score(with_blur, tmp_path / "out", bundle=TINY, ood="refuse")
    row = outcome.predictions["S001"]
    assert (row["status"], row["reason"]) == (
        "refused",
        "unlike_training: unlike the training patients: sharpness low; see --ood",
    )
    assert {row[column] for column in row if column not in OF_EVERYBODY} == {""}
    of_patient = [image for image in outcome.images if image["patient_id"] == "S001"]
    assert {image["reason"].partition(":")[0] for image in of_patient} == {"patient_refused"}
    assert {image["influence"] for image in of_patient} == {""}
    assert outcome.record["patient_reasons"] == {"unlike_training": 1}
    # Drift still sees what was measured on them: a night that is refused altogether is not "too few patients".
    assert outcome.record["patients"]["scored"] == len(outcome.predictions) - 1
    drift = (outcome.out / "drift.json").read_text()
    assert f'"patients": {len(outcome.predictions)},' in drift


@pytest.mark.parametrize("ood", get_args(Ood))
def test_pages_are_written_whatever_becomes_of_the_patient(ood: Ood, with_blur: Path, tmp_path: Path) -> None:
    outcome = score(with_blur, tmp_path / "out", bundle=TINY, ood=ood, report=True)
    index = (outcome.out / "report/index.html").read_text(encoding="utf-8")
    page = (outcome.out / "report/p00001.html").read_text(encoding="utf-8")
    assert outcome.code == 0
    assert "Patients unlike the training patients" in index
    said = (
        "What is unlike: Sharpness low." if ood == "refuse" else "Unlike the training patients: Sharpness low. The prob"
    )
    assert said in page
    assert ("The probability may be wrong" in page) == (ood != "refuse")  # a refused patient has none


def test_what_cannot_be_measured_is_not_taken_for_usual(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distance that is no number: the patient has failed, as when a probability is none."""
    measures_of = cohort_module._measures

    def broken(*of: Any) -> dict[str, float]:
        return measures_of(*of) | {"features_within": float("nan")}

    monkeypatch.setattr(cohort_module, "_measures", broken)
    row = score(cohort, tmp_path / "out", bundle=TINY).predictions["S001"]
    assert (row["status"], row["reason"].partition(":")[0], row["decision"]) == ("failed", "not_finite", "")


def test_a_patient_of_an_unheard_of_age_is_not_decided(cohort: Path, tmp_path: Path) -> None:
    manifest = tiny_manifest()
    manifest["reference"]["usual"]["ranges"]["lymph_count"] = {"low": 800.0, "high": 900.0}
    outcome = score(cohort, tmp_path / "out", bundle=write_bundle(tmp_path / "bundle", manifest))
    for row in outcome.predictions.values():
        assert (row["decision"], row["ood_p"], row["unusual"]) == ("refer", "0.0076", "lymph_count low")
    assert outcome.record["patients_unlike_training"] == len(outcome.predictions)
    assert (outcome.record["unlike_training"], outcome.record["unusual_measures"]) == ([], {})  # no patient's values
    assert "lymph_count" not in (outcome.out / "run.log").read_text()
