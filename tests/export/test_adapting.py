"""A bundle adapted to a hospital: validated, adapted, scored and validated again, on drawn patients."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from export.adapting.adapt import AdaptOptions, with_precision
from export.adapting.local import Local, read_local
from export.adapting.points import USUAL, CrossFitted, cross_fit, keeping
from export.adapting.recalibration import SLOPE as SLOPE_TOO
from export.adapting.recalibration import recalibrate
from export.usual import held_up_by_others
from infer.bundle.load import REFERENCE, load_bundle
from infer.bundle.manifest import Manifest
from infer.bundle.reference import LEVELS
from infer.cohort.patient import Cohort
from infer.errors import UsageError
from infer.output.kept import KEPT, read_results
from infer.scoring.ensemble import calibrated
from tests.export.hospital import (
    HALF,
    Hospital,
    adapt,
    adapted,
    fewer_resamples,
    hospital,
    manifest_of,
    relabelled,
    validate,
)
from tests.infer.runs import score
from train.core.performance import Predictions, calibration_slope
from train.evaluation.validation.said import TRAINING

__all__ = ["adapted", "fewer_resamples", "hospital"]


def test_the_networks_stay_and_the_rest_says_what_was_done(hospital: Hospital, adapted: Path) -> None:
    before, after = load_bundle(hospital.bundle), load_bundle(adapted)
    assert after.graphs == before.graphs
    assert after.bundle_id != before.bundle_id
    made, judged = after.manifest.adapted, hospital.judged
    assert made
    assert (made.source, made.patients, made.malignant) == (before.bundle_id, HALF, judged["label"].sum())
    assert (made.fitted, made.reference) == ("prevalence, intercept, slope", True)
    assert after.manifest.prevalence == judged["label"].mean()
    card = (adapted / "MODEL_CARD.md").read_text()
    assert after.bundle_id in card
    assert before.bundle_id in card
    assert (hospital.bundle / "MODEL_CARD.md").read_text().splitlines()[-1] in card


def test_scoring_recalibrates(hospital: Hospital, adapted: Path, tmp_path: Path) -> None:
    by = manifest_of(adapted).ensemble.recalibration
    assert by
    found = score(hospital.one, tmp_path / "out", bundle=adapted).predictions
    results = read_results(hospital.validation / "scored" / KEPT, HALF)
    before = {one.patient_id: one.scores.probability for one in results if one.scores}
    assert len(before) == HALF
    for patient, probability in before.items():
        expected = expit(by.slope * logit(min(probability, 1 - by.clip)) + by.intercept)
        assert float(found[patient]["probability_malignant"]) == pytest.approx(expected, abs=1e-6)


def test_few_of_the_hospitals_patients_are_held_up(hospital: Hospital, adapted: Path, tmp_path: Path) -> None:
    """Of those it was adapted to, and of the others."""
    assert hospital.judged["held_up"].all()
    for number, cohort in enumerate((hospital.one, hospital.other)):
        record = score(cohort, tmp_path / str(number), bundle=adapted).record
        assert record["patients_unlike_training"] <= 0.1 * HALF


def test_calibration_is_repaired_on_patients_it_has_not_seen(hospital: Hospital, adapted: Path, tmp_path: Path) -> None:
    """The damage and the repair, each by its interval; of the malignant patients no more than asked is missed."""

    def figures(bundle: Path, out: Path) -> dict[str, dict[str, float]]:
        validate(hospital.other, out, bundle)
        record = json.loads((out / "validation.json").read_text())
        found = {row["figure"]: row for row in record["performance"] if row["model"] == "ensemble"}
        points = {f"{row['operating_point']} {row['figure']}": row for row in record["operating_points"]}
        return found | points

    before, after = figures(hospital.bundle, tmp_path / "before"), figures(adapted, tmp_path / "after")
    assert before["calibration_slope"]["high"] < 1
    assert after["calibration_slope"]["low"] < 1 < after["calibration_slope"]["high"]
    assert after["calibration_intercept"]["low"] < 0 < after["calibration_intercept"]["high"]
    assert abs(after["calibration_slope"]["value"] - 1) < abs(before["calibration_slope"]["value"] - 1)
    assert after["brier_score"]["value"] < before["brier_score"]["value"]
    missed = after["sensitivity-95 malignant called reactive"]
    assert missed["low"] <= 0.05
    assert before["balanced referred"]["value"] == 1  # everybody is held up
    assert after["balanced referred"]["value"] < 0.6


def test_what_the_card_says_of_before_is_what_validation_said(hospital: Hospital, adapted: Path) -> None:
    record = json.loads((hospital.validation / "validation.json").read_text())
    slope = next(row for row in record["performance"] if row["figure"] == "calibration_slope")
    line = next(one for one in (adapted / "MODEL_CARD.md").read_text().splitlines() if "calibration slope" in one)
    assert f"{slope['value']:.3f}".lstrip("0") in line.split("|")[2]
    assert slope["high"] < 1


def test_patients_it_was_adapted_to_are_known_again(hospital: Hospital, adapted: Path, tmp_path: Path) -> None:
    assert TRAINING in validate(hospital.one, tmp_path / "one", adapted)
    fewer = tmp_path / "fewer"  # another table, the same pictures
    shutil.copytree(hospital.one, fewer)
    relabelled(fewer, dict(list(hospital.labels.items())[:40]))
    assert TRAINING in validate(fewer, tmp_path / "again", adapted)
    assert TRAINING not in validate(hospital.other, tmp_path / "other", adapted)
    assert adapt(adapted, tmp_path / "other", tmp_path / "twice") == 2
    assert not (tmp_path / "twice").exists()


def test_few_patients_change_the_prevalence_alone(hospital: Hospital, tmp_path: Path) -> None:
    """25 patients: all log odds move by the same amount, and every decision stays."""
    few = tmp_path / "few"
    shutil.copytree(hospital.one, few)
    labels = hospital.labels
    relabelled(few, dict(list(labels.items())[:25]))
    validate(few, tmp_path / "validation", hospital.bundle)
    assert adapt(hospital.bundle, tmp_path / "validation", tmp_path / "bundle") == 0
    manifest = manifest_of(tmp_path / "bundle")
    share = np.mean(list(labels.values())[:25])
    by = manifest.ensemble.recalibration
    assert by
    assert by.slope == 1
    assert by.intercept == pytest.approx(logit(share) - logit(manifest_of(hospital.bundle).prevalence))
    assert manifest.reference.usual == manifest_of(hospital.bundle).reference.usual
    before, after = (
        score(few, tmp_path / name, bundle=bundle, ood="warn").predictions
        for name, bundle in (("before", hospital.bundle), ("after", tmp_path / "bundle"))
    )
    assert [row["decision"] for row in after.values()] == [row["decision"] for row in before.values()]
    assert "Only the prevalence was adapted" in (tmp_path / "bundle/MODEL_CARD.md").read_text()


def test_a_stated_prevalence_comes_last(hospital: Hospital, adapted: Path, tmp_path: Path) -> None:
    asked = (
        hospital.bundle,
        hospital.validation,
        tmp_path / "bundle",
        "--prevalence",
        0.1,
        "--operating-point",
        "rule-in=.5",
    )
    assert adapt(*asked) == 0
    stated, local = manifest_of(tmp_path / "bundle"), manifest_of(adapted)
    shift = logit(0.1) - logit(local.prevalence)
    assert stated.prevalence == 0.1
    assert stated.ensemble.recalibration
    assert local.ensemble.recalibration
    assert stated.ensemble.recalibration.slope == local.ensemble.recalibration.slope
    assert stated.ensemble.recalibration.intercept == pytest.approx(local.ensemble.recalibration.intercept + shift)
    assert set(stated.ensemble.operating_points) == {*local.ensemble.operating_points, "rule-in"}
    moved, fitted = (one.ensemble.operating_points["balanced"].refer_high for one in (stated, local))
    assert logit(moved) == pytest.approx(logit(fitted) + shift)


def test_patients_who_were_trained_on_are_left_out(hospital: Hospital, tmp_path: Path) -> None:
    shutil.copytree(hospital.validation, tmp_path / "validation")
    table = pd.read_csv(tmp_path / "validation/patients.csv", dtype={"patient_id": str})
    table["trained_on"] = (np.arange(len(table)) < 5).astype(int)
    table.to_csv(tmp_path / "validation/patients.csv", index=False)
    assert adapt(hospital.bundle, tmp_path / "validation", tmp_path / "bundle") == 0
    made = manifest_of(tmp_path / "bundle").adapted
    assert made
    assert (made.patients, made.malignant) == (HALF - 5, table["label"][5:].sum())
    card = " ".join((tmp_path / "bundle/MODEL_CARD.md").read_text().split())
    assert "5 patients whom the bundle was trained on were left out" in card


def read_again(hospital: Hospital, seed: int = 0) -> tuple[Local, CrossFitted]:
    """The patients, and what is cross-fitted on them."""
    local = read_local(hospital.validation, load_bundle(hospital.bundle))
    prevalence = manifest_of(hospital.bundle).prevalence
    return local, cross_fit(local.probability, local.labels, prevalence, SLOPE_TOO, USUAL, seed)


def test_thresholds_are_those_that_keep_the_sensitivity(hospital: Hospital, adapted: Path, tmp_path: Path) -> None:
    local, _ = read_again(hospital)
    manifest = manifest_of(adapted)
    by = manifest.ensemble.recalibration
    assert by
    fitted = calibrated(local.probability, by)
    found = score(hospital.one, tmp_path / "out", bundle=adapted).predictions
    again = {name: float(row["probability_malignant"]) for name, row in found.items()}
    for name, wanted in USUAL.items():
        low = manifest.ensemble.operating_points[name].refer_low
        balanced = manifest.ensemble.operating_points["balanced"].refer_low
        assert low == pytest.approx(min(keeping(fitted, local.labels, wanted), balanced))
        below = [again[patient] < low for patient, label in hospital.labels.items() if label]
        assert np.mean(below) <= 1 - wanted
    assert len({manifest.ensemble.operating_points[name].refer_low for name in USUAL}) == 2


def test_the_cards_figures_of_after_are_cross_fitted(hospital: Hospital, adapted: Path) -> None:
    local, crossed = read_again(hospital)
    once = np.ones((1, HALF))
    slopes = [calibration_slope(Predictions(local.labels, one, one >= 0.5), once)[0] for one in crossed.probability]
    card = (adapted / "MODEL_CARD.md").read_text().splitlines()
    line = next(one for one in card if "calibration slope" in one)
    assert f"{np.mean(slopes):.3f}".lstrip("0") in line.split("|")[3]
    held_up = held_up_by_others(local.measures, manifest_of(adapted).reference.usual.limit)
    called = (crossed.decisions["balanced"] == "reactive") & ~held_up
    missed = called[:, local.labels == 1].mean()
    line = next(one for one in card if one.startswith("| `balanced`"))
    assert f"{missed:.3f}".lstrip("0") in line.split("|")[6]
    line = next(one for one in card if one.startswith("| patients left undecided"))
    assert [cell.strip() for cell in line.split("|")[2:4]] == [str(HALF), str(held_up.sum())]


def test_the_reference_is_of_these_patients(hospital: Hospital, adapted: Path) -> None:
    local, crossed = read_again(hospital)
    before, after = manifest_of(hospital.bundle), manifest_of(adapted)
    assert after.reference.patients == len(after.reference.usual.scores) == HALF
    assert after.reference.measures["age_years"] == pytest.approx(
        np.quantile(local.measures["age_years"], LEVELS), rel=1e-5
    )
    assert after.reference.measures["probability"] == pytest.approx(
        np.quantile(crossed.probability.mean(axis=0), LEVELS), rel=1e-5
    )
    assert after.adapted
    assert after.adapted.seen == local.seen != ""
    assert after.reference.seen == before.reference.seen
    assert after.reference.appearance is not None  # of the training pictures, as before
    assert after.reference.appearance == before.reference.appearance
    fitted = recalibrate(local.alone, local.labels, before.prevalence, SLOPE_TOO)
    expected = fitted.of(local.alone)
    alone = after.reference.clinical
    values = (local.measures[name] for name in ("sex", "lymph_count", "age_years"))
    found = [alone.probability(*one) for one in zip(*(value.tolist() for value in values), strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not after.drift.knows_size(224, 225)
    assert after.drift.knows_size(112, 112)  # the drawn pictures' size, which the bundle did not know


def test_members_and_influences_move_as_the_ensemble_does(hospital: Hospital, adapted: Path, tmp_path: Path) -> None:
    by = manifest_of(adapted).ensemble.recalibration
    assert by
    score(hospital.one, tmp_path / "out", bundle=adapted)
    runs = (hospital.validation / "scored", tmp_path / "out")
    for before, after in zip(*(read_results(run / KEPT, HALF) for run in runs), strict=True):
        assert before.scores
        assert after.scores
        for name, value in before.scores.members.items():
            moved = calibrated(np.array(value), by)
            assert after.scores.members[name] == pytest.approx(float(moved), abs=1e-6)
        for image, other in zip(before.images, after.images, strict=True):
            assert other.influence == pytest.approx(by.slope * (image.influence or 0), abs=1e-6)
            for name, value in image.influence_of.items():
                assert other.influence_of[name] == pytest.approx(by.slope * value, abs=1e-6)
    assert by.slope < 0.9


def test_int8_is_kept_only_if_it_is_proven_on_these_patients(
    hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --reduced float32 alone; with it, the proof of export is asked for, on the validation's patients."""
    asked_of: list[Cohort] = []

    def proven(manifest: Manifest, graphs: dict[str, bytes], cohort: Cohort, precision: str) -> Manifest:
        assert (set(graphs), precision) == (set(bundle.graphs), "int8")
        asked_of.append(cohort)
        return manifest

    monkeypatch.setattr("export.adapting.adapt.with_reduced", proven)
    bundle, local = load_bundle(REFERENCE), read_again(hospital)[0]
    plain, graphs = with_precision(bundle, bundle.manifest, local, AdaptOptions())
    assert plain.int8 is None
    assert set(graphs) == set(plain.graphs) == set(bundle.graphs) - {"backbone.int8.onnx"}
    assert asked_of == []
    _, kept = with_precision(bundle, bundle.manifest, local, AdaptOptions(reduced=hospital.one))
    assert kept == bundle.graphs
    assert [len(cohort.patients) for cohort in asked_of] == [HALF]
    with pytest.raises(UsageError, match="its table is not the validation's"):
        with_precision(bundle, bundle.manifest, local, AdaptOptions(reduced=hospital.other))
    rescaled = replace(local, options=local.options | {"pixel_size": 0.2})
    with pytest.raises(UsageError, match="validated with --pixel-size"):
        with_precision(bundle, bundle.manifest, rescaled, AdaptOptions(reduced=hospital.one))
