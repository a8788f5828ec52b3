"""A bundle adapted to a hospital: validated, adapted, scored and validated again, on drawn patients."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.special import expit, logit

from export import __main__ as export
from infer.bundle.load import load_bundle
from infer.bundle.manifest import Manifest
from infer.output.kept import KEPT, read_results
from tests.infer.runs import TABLE, score, tiny_manifest, write_bundle
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort
from train.cli.commands import cli

DATE = ("--reference-date", REFERENCE_DATE.isoformat())
PATIENTS, HALF = 120, 60
SLOPE, INTERCEPT = 0.5, -1.0  # what the bundle's log odds ought to be multiplied by and moved by here


@dataclass(frozen=True)
class Hospital:
    """A cohort in two halves, with the validation of one."""

    folder: Path
    bundle: Path
    one: Path
    other: Path
    validation: Path

    @property
    def judged(self) -> pd.DataFrame:
        return pd.read_csv(self.validation / "patients.csv", dtype={"patient_id": str})

    @property
    def labels(self) -> dict[str, int]:
        return dict(zip(self.judged["patient_id"], self.judged["label"].tolist(), strict=True))


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.evaluation.validation.figures.RESAMPLES", 300)


def relabelled(cohort: Path, labels: dict[str, int]) -> None:
    """Write a LABEL for each patient."""
    with (cohort / TABLE).open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    with (cohort / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(row | {"LABEL": labels[row["ID"]]} for row in table if row["ID"] in labels)


def validate(cohort: Path, out: Path, bundle: Path) -> str:
    done = CliRunner().invoke(cli, ["validate", str(bundle), str(cohort), str(out), *DATE])
    assert done.exit_code == 0, done.output
    return done.output


def adapt(*arguments: object) -> int:
    try:
        export.main(["adapt", *map(str, arguments)])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def opinionated(folder: Path) -> Path:
    """The tiny bundle with log odds as far apart as a trained one's, to which these pictures are not sharp."""
    manifest = tiny_manifest()
    manifest["ensemble"]["weights"] = {**dict.fromkeys(manifest["members"], 0.0), "imagenet": 1.0}
    manifest["ensemble"]["calibration"]["imagenet"] |= {"slope": 20.0, "intercept": 5.0}
    manifest["reference"]["usual"]["spans"]["sharpness"] = {"low": 900.0, "middle": 901.0, "high": 902.0}
    return write_bundle(folder, manifest)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Labels are drawn from the bundle's own log odds, which are too extreme and too high here."""
    folder = tmp_path_factory.mktemp("hospital")
    bundle = opinionated(folder / "bundle")
    one, other = folder / "one", folder / "other"
    write_cohort(one, make_patients(PATIENTS, seed=3, images=(10, 10)), seed=3, size=112)
    found = score(one, folder / "all", bundle=bundle, ood="warn").predictions
    rng = np.random.default_rng(0)
    odds = {name: logit(float(row["probability_malignant"])) for name, row in found.items()}
    labels = {name: int(rng.random() < expit(SLOPE * value + INTERCEPT)) for name, value in odds.items()}
    shutil.copytree(one, other)
    names = list(labels)
    relabelled(one, {name: labels[name] for name in names[:HALF]})
    relabelled(other, {name: labels[name] for name in names[HALF:]})
    validate(one, folder / "validation", bundle)
    return Hospital(folder, bundle, one, other, folder / "validation")


@pytest.fixture(scope="module")
def adapted(hospital: Hospital) -> Path:
    assert adapt(hospital.bundle, hospital.validation, hospital.folder / "adapted") == 0
    return hospital.folder / "adapted"


def manifest_of(folder: Path) -> Manifest:
    return load_bundle(folder).manifest


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


def test_what_the_card_says_of_before_is_what_validation_said(hospital: Hospital, adapted: Path) -> None:
    record = json.loads((hospital.validation / "validation.json").read_text())
    slope = next(row for row in record["performance"] if row["figure"] == "calibration_slope")
    line = next(one for one in (adapted / "MODEL_CARD.md").read_text().splitlines() if "calibration slope" in one)
    assert f"{slope['value']:.3f}".lstrip("0") in line.split("|")[2]
    assert slope["high"] < 1


def test_patients_it_was_adapted_to_are_known_again(hospital: Hospital, adapted: Path, tmp_path: Path) -> None:
    assert "No validation: these are the training patients" in validate(hospital.one, tmp_path / "one", adapted)
    assert "these are the training patients" not in validate(hospital.other, tmp_path / "other", adapted)
    assert adapt(adapted, tmp_path / "other", tmp_path / "again") == 2
    assert not (tmp_path / "again").exists()


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


def test_labels_without_a_relation_to_the_pictures_are_refused(
    hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    permuted = tmp_path / "permuted"
    shutil.copytree(hospital.one, permuted)
    labels = hospital.labels
    shuffled = np.random.default_rng(1).permutation(list(labels.values()))
    relabelled(permuted, dict(zip(labels, shuffled.tolist(), strict=True)))
    validate(permuted, tmp_path / "validation", hospital.bundle)
    assert adapt(hospital.bundle, tmp_path / "validation", tmp_path / "bundle") == 2
    assert "no skill is shown on these patients (AUC" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda folder: (folder / "validation.json").unlink(), "holds no finished validation"),
        (lambda folder: edited(folder, bundle="f" * 64), "is a validation of bundle ffffffffffff"),
        (lambda folder: edited(folder, table_of_training=True), "are those that the bundle was trained on"),
        (lambda folder: column(folder, "trained_on", 1), "are those that the bundle was trained on"),
        (lambda folder: column(folder, "label", 1), "patients of one class only"),
        (lambda folder: without(folder, "trained_on"), "an earlier version of this program"),
    ],
)
def test_a_validation_that_does_not_fit(
    hospital: Hospital,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    error: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(hospital.validation, tmp_path / "validation")
    spoil(tmp_path / "validation")
    assert adapt(hospital.bundle, tmp_path / "validation", tmp_path / "bundle") == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


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


def test_int8_needs_graphs_in_int8(hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt(hospital.bundle, hospital.validation, tmp_path / "bundle", "--reduced", hospital.one) == 2
    assert "has no graphs in int8" in capsys.readouterr().err


@pytest.mark.parametrize("point", ["rule-out", "=.9", "rule-out=1", "rule-out=95", "balanced=.9", "rule-out=nan"])
def test_operating_points_that_mean_nothing(hospital: Hospital, tmp_path: Path, point: str) -> None:
    assert adapt(hospital.bundle, hospital.validation, tmp_path / "bundle", "--operating-point", point) == 2


def edited(folder: Path, **changes: object) -> None:
    path = folder / "validation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def column(folder: Path, name: str, value: int) -> None:
    table = pd.read_csv(folder / "patients.csv", dtype={"patient_id": str})
    table[name] = value
    table.to_csv(folder / "patients.csv", index=False)


def without(folder: Path, name: str) -> None:
    table = pd.read_csv(folder / "patients.csv", dtype={"patient_id": str})
    table.drop(columns=name).to_csv(folder / "patients.csv", index=False)
