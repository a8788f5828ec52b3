"""What a bundle is not adapted to: another validation, an edited one, too few patients, patients without skill."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from infer.errors import UsageError
from infer.options import check_adapted
from infer.output.kept import KEPT
from tests.export.hospital import DATE, Hospital, adapt, adapted, fewer_resamples, hospital, relabelled, validate
from tests.infer.manifests import ADAPTED
from tests.infer.runs import TABLE, TINY
from train.cli.commands import cli

__all__ = ["adapted", "fewer_resamples", "hospital"]


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
    assert "no skill is shown: the bundle ranks these patients no better than chance (AUC" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda folder: (folder / "validation.json").unlink(), "holds no finished validation"),
        (lambda folder: edited(folder, bundle="f" * 64), "is a validation of bundle ffffffffffff"),
        (lambda folder: edited(folder, table_of_training=True), "are those that the bundle was trained on"),
        (lambda folder: column(folder, "trained_on", 1), "are those that the bundle was trained on"),
        (lambda folder: column(folder, "label", 1), "patients of one class only"),
        (lambda folder: without(folder, "trained_on"), "has no column trained_on"),
        (lambda folder: shutil.rmtree(folder / "scored"), "incomplete, was edited"),
        (lambda folder: (folder / "scored" / KEPT).unlink(), "incomplete, was edited"),
        (lambda folder: (folder / "scored/run.json").write_text("{"), "incomplete, was edited"),
        (lambda folder: (folder / "patients.csv").unlink(), "incomplete, was edited"),
        (lambda folder: (folder / "validation.json").write_text("[]"), "holds no finished validation"),
        (lambda folder: rewritten(folder, "S001", "1"), "incomplete, was edited"),
        (lambda folder: rewritten(folder, "label", "LABEL"), "has no column label"),
        (lambda folder: edited(folder, table_sha256="0" * 64), "scored is another run than validation.json describes"),
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


def test_int8_needs_graphs_in_int8(hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt(hospital.bundle, hospital.validation, tmp_path / "bundle", "--reduced", hospital.one) == 2
    assert "has no graphs in int8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "point",
    [
        "rule-out", "=.9", "rule-out=1", "rule-out=95", "balanced=.9", "rule-out=nan", "sensitivity-95=.5", "a|b=.9",
        "A=.9"
    ],
)  # fmt: skip
def test_operating_points_that_mean_nothing(hospital: Hospital, tmp_path: Path, point: str) -> None:
    assert adapt(hospital.bundle, hospital.validation, tmp_path / "bundle", "--operating-point", point) == 2


def test_a_name_given_twice(hospital: Hospital, tmp_path: Path) -> None:
    twice = ("--operating-point", "rule-out=.9", "--operating-point", "rule-out=.8")
    assert adapt(hospital.bundle, hospital.validation, tmp_path / "bundle", *twice) == 2


@pytest.mark.parametrize("share", ["0", "1", "30", "nan"])
def test_a_prevalence_that_is_no_share(hospital: Hospital, tmp_path: Path, share: str) -> None:
    assert adapt(hospital.bundle, hospital.validation, tmp_path / "bundle", "--prevalence", share) == 2
    assert not (tmp_path / "bundle").exists()


def test_the_bundle_it_is_made_from_stays(hospital: Hospital) -> None:
    before = {path.name: path.read_bytes() for path in hospital.bundle.iterdir()}
    assert adapt(hospital.bundle, hospital.validation, hospital.bundle, "--replace") == 2
    assert {path.name: path.read_bytes() for path in hospital.bundle.iterdir()} == before


def test_a_validation_that_was_begun_again_is_none(hospital: Hospital, tmp_path: Path) -> None:
    """Another bundle's run, stopped before it was judged, must not stand beside the first one's figures."""
    again = tmp_path / "validation"
    shutil.copytree(hospital.validation, again)
    one_class = tmp_path / "one class"
    shutil.copytree(hospital.one, one_class)
    relabelled(one_class, dict.fromkeys(hospital.labels, 1))
    done = CliRunner().invoke(cli, ["validate", str(TINY), str(one_class), str(again), *DATE])
    assert done.exit_code != 0
    assert not (again / "validation.json").exists()
    assert adapt(hospital.bundle, again, tmp_path / "bundle") == 2


def test_too_few_patients_and_no_skill_at_all(
    hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    shutil.copytree(hospital.one, few)
    some = list(hospital.labels.items())
    judged = hospital.judged.sort_values("probability").iloc[::4]
    wrong_way = [(name, int(place < 8)) for place, name in enumerate(judged["patient_id"])]
    for number, (labels, error) in enumerate([(some[:9], "has 9 patients, and 10"), (wrong_way, "no skill is shown")]):
        relabelled(few, dict(labels))
        validate(few, tmp_path / str(number), hospital.bundle)
        assert adapt(hospital.bundle, tmp_path / str(number), tmp_path / "bundle") == 2
        assert error in capsys.readouterr().err
        shutil.copy(hospital.one / TABLE, few / TABLE)


def test_few_patients_choose_no_thresholds(
    hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    shutil.copytree(hospital.one, few)
    relabelled(few, dict(list(hospital.labels.items())[:25]))
    validate(few, tmp_path / "validation", hospital.bundle)
    asked = (hospital.bundle, tmp_path / "validation", tmp_path / "bundle", "--operating-point", "rule-out=.9")
    assert adapt(*asked) == 2
    assert "thresholds cannot be chosen" in capsys.readouterr().err


@pytest.mark.parametrize("pixel_size", [None, 0.2])
def test_pictures_are_scored_as_those_it_was_adapted_to(pixel_size: float | None) -> None:
    made = msgspec.structs.replace(ADAPTED, pixel_size=pixel_size)
    check_adapted(pixel_size, made)
    with pytest.raises(UsageError, match="was adapted to pictures read with another value"):
        check_adapted(0.1, made)


def edited(folder: Path, **changes: object) -> None:
    path = folder / "validation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewritten(folder: Path, old: str, new: str) -> None:
    path = folder / "patients.csv"
    path.write_text(path.read_text().replace(old, new, 1))


def column(folder: Path, name: str, value: int) -> None:
    table = pd.read_csv(folder / "patients.csv", dtype={"patient_id": str})
    table[name] = value
    table.to_csv(folder / "patients.csv", index=False)


def without(folder: Path, name: str) -> None:
    table = pd.read_csv(folder / "patients.csv", dtype={"patient_id": str})
    table.drop(columns=name).to_csv(folder / "patients.csv", index=False)
