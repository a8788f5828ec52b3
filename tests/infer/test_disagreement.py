"""Members that disagree above the bundle's bound: nobody is decided by them, at any prevalence."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from infer.bundle.load import load_bundle
from infer.bundle.manifest import decode
from infer.errors import BundleError
from infer.scoring.ensemble import decide
from tests.infer.runs import TINY, Outcome, score, tiny_manifest, write_bundle
from tests.synthetic import make_patients, write_cohort

PATIENTS = 8
NEW = ("decision", "bundle", "refer_disagreement")  # columns in which a bound may show


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "patients"
    write_cohort(folder, make_patients(PATIENTS, seed=5, images=(12, 14)), seed=5, labels=False, size=128)
    return folder


@pytest.fixture(scope="module")
def plain(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Scored by a bundle without a bound."""
    folder = tmp_path_factory.mktemp("plain")
    return score(drawn, folder / "out", bundle=write_bundle(folder / "bundle", with_equal_weights()), ood="warn")


@pytest.fixture(scope="module")
def bound(plain: Outcome) -> float:
    """Between the fourth and the fifth patient, so that half of them disagree above it."""
    apart = sorted(float(row["disagreement_of_weighted"]) for row in plain.predictions.values())
    assert apart[4] - apart[3] > 1e-4
    return (apart[3] + apart[4]) / 2


@pytest.fixture(scope="module")
def bounded(bound: float, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a bound, at whose only operating point the probability always decides."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "bounded", manifest(bound))


def with_equal_weights() -> dict[str, Any]:
    """The tiny bundle's manifest, but all four members have a say."""
    made = tiny_manifest()
    made["ensemble"]["weights"] = dict.fromkeys(made["ensemble"]["weights"], 0.25)
    return made


def manifest(bound: float | None) -> dict[str, Any]:
    made = with_equal_weights()
    made["ensemble"]["disagreement"] = bound
    made["ensemble"]["operating_points"] = {"balanced": {"refer_low": 0.55, "refer_high": 0.55}}
    return made


def referred(outcome: Outcome) -> set[str]:
    return {patient for patient, row in outcome.predictions.items() if row["decision"] == "refer"}


def test_a_bundle_without_a_bound_decides_by_the_probability(plain: Outcome) -> None:
    point = load_bundle(TINY).manifest.ensemble.operating_points["balanced"]
    for row in plain.predictions.values():
        assert row["decision"] == decide(float(row["probability_malignant"]), point)
        assert row["refer_disagreement"] == ""
        assert row["disagreement_of_weighted"] == row["disagreement"]
    assert plain.record["patients_disagreeing"] == 0
    assert plain.record["bundle"]["thresholds"]["refer_disagreement"] is None
    assert b"disagreement" not in (TINY / "manifest.json").read_bytes()


def test_a_bound_that_nobody_exceeds_changes_no_decision(plain: Outcome, drawn: Path, tmp_path: Path) -> None:
    made = with_equal_weights()
    made["ensemble"]["disagreement"] = 1.0
    outcome = score(drawn, tmp_path / "out", bundle=write_bundle(tmp_path / "bundle", made), ood="warn")
    for patient, row in plain.predictions.items():
        expected = row | {"bundle": outcome.record["bundle"]["id"][:12], "refer_disagreement": "1.000000"}
        assert outcome.predictions[patient] == expected


def test_above_the_bound_everybody_is_referred_and_the_files_say_why(
    plain: Outcome, drawn: Path, bounded: Path, bound: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lympho")  # as the command line sets it
    outcome = score(drawn, tmp_path / "out", bundle=bounded, ood="warn", report=True)
    above = {patient for patient, row in plain.predictions.items() if float(row["disagreement_of_weighted"]) > bound}
    assert len(above) == PATIENTS / 2
    assert referred(outcome) == above
    for patient, row in outcome.predictions.items():
        assert row["refer_disagreement"] == f"{bound:.6f}"
        numbers = {column: cell for column, cell in row.items() if column not in NEW}
        others = ("refer_low", "refer_high")
        assert {**numbers, **dict.fromkeys(others)} == {
            **{column: cell for column, cell in plain.predictions[patient].items() if column not in NEW},
            **dict.fromkeys(others),
        }
    record = outcome.record
    assert record["patients_disagreeing"] == len(above) == record["decisions"]["refer"]
    assert record["bundle"]["thresholds"]["refer_disagreement"] == bound
    log = (outcome.out / "run.log").read_text()
    assert f"decided refer because their members disagree too much: {len(above)}" in log
    pages = [path.read_text() for path in sorted((outcome.out / "report").glob("p0*.html"))]
    assert sum("the models disagree more than they did on 95%" in page for page in pages) == len(above)


@pytest.mark.parametrize("prevalence", [0.02, 0.3, 0.95])
def test_another_prevalence_changes_nobody_who_is_referred_for_it(
    plain: Outcome, drawn: Path, bounded: Path, bound: float, tmp_path: Path, prevalence: float
) -> None:
    outcome = score(drawn, tmp_path / "out", bundle=bounded, ood="warn", prevalence=prevalence)
    assert referred(outcome) == {
        patient for patient, row in plain.predictions.items() if float(row["disagreement_of_weighted"]) > bound
    }
    for patient, row in outcome.predictions.items():
        assert row["disagreement_of_weighted"] == plain.predictions[patient]["disagreement_of_weighted"]
        assert row["disagreement"] != row["disagreement_of_weighted"]
    assert outcome.record["bundle"]["thresholds"]["refer_disagreement"] == bound


def test_a_slope_as_in_an_adapted_bundle_changes_nobody_either(
    plain: Outcome, drawn: Path, bound: float, tmp_path: Path
) -> None:
    made = manifest(bound)
    made["ensemble"]["recalibration"] = {"slope": 0.35, "intercept": -1.0, "clip": 1e-6}
    outcome = score(drawn, tmp_path / "out", bundle=write_bundle(tmp_path / "bundle", made), ood="warn")
    above = {patient for patient, row in plain.predictions.items() if float(row["disagreement_of_weighted"]) > bound}
    assert referred(outcome) == above
    assert all(float(row["disagreement"]) < bound for row in outcome.predictions.values())  # on the other scale


def test_a_member_without_a_say_refers_nobody(plain: Outcome, drawn: Path, bound: float, tmp_path: Path) -> None:
    made = manifest(bound)
    made["ensemble"]["weights"] = dict(zip(made["ensemble"]["weights"], (0.01, 0.97, 0.01, 0.01), strict=True))
    outcome = score(drawn, tmp_path / "out", bundle=write_bundle(tmp_path / "bundle", made), ood="warn")
    assert referred(outcome) == set()
    for patient, row in outcome.predictions.items():
        assert row["disagreement_of_weighted"] == "0.000000"
        assert row["disagreement"] == plain.predictions[patient]["disagreement"]


@pytest.mark.parametrize("bad", [-0.1, 1.1, "x"])
def test_a_bound_is_a_share(bad: Any) -> None:
    with pytest.raises(BundleError, match=r"ensemble.disagreement"):
        decode(json.dumps(manifest(bad)).encode(), "manifest.json")
