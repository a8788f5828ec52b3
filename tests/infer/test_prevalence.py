"""Another share of malignant patients: all log odds move by the same amount, and nobody is decided otherwise."""

import dataclasses
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from infer.bundle.load import REFERENCE, load_bundle
from infer.bundle.manifest import Calibration, OperatingPoint, decode, encode
from infer.errors import UsageError
from infer.options import Options, check_options
from infer.output.kept import KEPT, read_results
from infer.report.command import command
from infer.scoring.ensemble import decide
from infer.scoring.prevalence import at_prevalence, log_odds_of, moved, recalibrate
from infer.scoring.result import PatientResult, Scores
from tests.infer.manifests import make_manifest
from tests.infer.runs import TINY, Outcome, cut, score
from tests.synthetic import make_patients, write_cohort

SHARE = 0.3
PATIENTS = 5


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "patients"
    write_cohort(folder, make_patients(PATIENTS, seed=5, images=(16, 18)), seed=5, labels=False, size=128)
    return folder


@pytest.fixture(scope="module")
def both(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Outcome]:
    """The same patients, as the bundle has it and where fewer are malignant."""
    out = tmp_path_factory.mktemp("out")
    return (
        score(drawn, out / "as it is", bundle=TINY, ood="warn", report=True),
        score(drawn, out / "moved", bundle=TINY, ood="warn", report=True, prevalence=SHARE),
    )


def results(outcome: Outcome) -> list[PatientResult]:
    return list(read_results(outcome.out / KEPT, PATIENTS))


def all_probabilities(scores: Scores) -> list[float]:
    """Of the ensemble, of each member, and of sex, age and count alone."""
    assert scores.clinical is not None
    return [scores.probability, *scores.members.values(), scores.clinical]


def shift() -> float:
    """Of the log odds, from the training patients' prevalence."""
    data = load_bundle(TINY).manifest.provenance.data_summary
    trained = data["malignant"] / data["patients"]
    return math.log(SHARE / (1 - SHARE)) - math.log(trained / (1 - trained))


def test_all_log_odds_move_by_the_same_amount(both: tuple[Outcome, Outcome]) -> None:
    for before, after in zip(*map(results, both), strict=True):
        assert before.scores
        assert after.scores
        for value, later in zip(all_probabilities(before.scores), all_probabilities(after.scores), strict=True):
            assert log_odds_of(later) == pytest.approx(log_odds_of(value) + shift(), abs=1e-6)


def test_decisions_influences_and_likeness_stay(both: tuple[Outcome, Outcome]) -> None:
    for before, after in zip(*map(results, both), strict=True):
        assert before.scores
        assert after.scores
        assert after.scores.decision == before.scores.decision
        assert after.scores.ood_p == before.scores.ood_p
        assert after.images == before.images


def test_the_run_says_where_its_probabilities_hold(both: tuple[Outcome, Outcome]) -> None:
    before, after = (outcome.record["bundle"] for outcome in both)
    data = load_bundle(TINY).manifest.provenance.data_summary
    assert before["prevalence"] == data["malignant"] / data["patients"]
    assert after["prevalence"] == SHARE == both[1].record["options"]["prevalence"]
    assert before["id"] == after["id"]
    assert "30%" in (both[1].out / "report" / "p00001.html").read_text()


def test_pages_written_later_are_the_same(both: tuple[Outcome, Outcome], drawn: Path) -> None:
    pages = {path.name: path.read_bytes() for path in (both[1].out / "report").iterdir()}
    asked = [str(drawn), str(both[1].out), "--bundle", str(TINY)]
    assert CliRunner().invoke(command, asked, standalone_mode=False).exception is None
    assert {path.name: path.read_bytes() for path in (both[1].out / "report").iterdir()} == pages


def test_a_run_at_another_prevalence_starts_over(drawn: Path, tmp_path: Path) -> None:
    cut(drawn, tmp_path / "out", ood="warn")
    record = score(drawn, tmp_path / "out", bundle=TINY, ood="warn", prevalence=SHARE).record
    assert record["kept_from_earlier_starts"] == 0
    assert record["started_over"] == "the unfinished run had another prevalence"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 30.0, math.nan])
def test_a_prevalence_is_a_share(share: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--prevalence"):
        check_options(Options(tmp_path / "patients", tmp_path / "out", prevalence=share))


def test_the_bundles_own_prevalence_changes_nothing() -> None:
    manifest = load_bundle(REFERENCE).manifest
    same = at_prevalence(manifest, manifest.prevalence)
    for name, point in manifest.ensemble.operating_points.items():
        assert same.ensemble.operating_points[name].refer_low == pytest.approx(point.refer_low, abs=1e-12)
    assert same.ensemble.recalibration == Calibration(1.0, 0.0, 1e-6)


def test_moves_one_after_the_other_are_one() -> None:
    manifest, clinical = make_manifest(), make_manifest().reference.clinical
    first, second = Calibration(0.5, 1.0), Calibration(1.5, -0.25)
    twice = recalibrate(recalibrate(manifest, first, clinical), second, clinical)
    once = recalibrate(manifest, Calibration(0.75, 1.25), clinical)
    assert twice.ensemble.recalibration == once.ensemble.recalibration
    assert twice.ensemble.operating_points["balanced"].refer_low == pytest.approx(
        once.ensemble.operating_points["balanced"].refer_low
    )


def test_thresholds_move_with_the_probabilities() -> None:
    """Whoever is decided so before is decided so after: for 1,000 patients and thresholds."""
    rng = np.random.default_rng(0)
    by = Calibration(0.6, -1.2)
    for probability, low, high in np.sort(rng.uniform(size=(1000, 3)))[:, [1, 0, 2]].tolist():
        for value in (probability, low / 2, (1 + high) / 2, low, high):
            before = decide(value, OperatingPoint(low, high))
            assert decide(moved(value, by), OperatingPoint(moved(low, by), moved(high, by))) == before
    assert [moved(end, by) for end in (0.0, 1.0)] == [0.0, 1.0]


def test_a_recalibrated_bundle_is_read_as_it_was_written() -> None:
    manifest = at_prevalence(make_manifest(), SHARE)
    assert decode(encode(manifest), "manifest.json") == manifest
    plain = encode(make_manifest())
    assert b"recalibration" not in plain
    assert b"adapted" not in plain


def test_a_bundle_of_one_class_is_refused() -> None:
    manifest = make_manifest()
    data = dict(manifest.provenance.data_summary, malignant=2)
    bad = msgspec.structs.replace(manifest, provenance=msgspec.structs.replace(manifest.provenance, data_summary=data))
    with pytest.raises(Exception, match="patients of both classes"):
        decode(encode(bad), "manifest.json")


def test_a_bundle_keeps_its_graphs() -> None:
    bundle = load_bundle(REFERENCE)
    other = dataclasses.replace(bundle, manifest=at_prevalence(bundle.manifest, SHARE))
    assert (other.graphs, other.bundle_id) == (bundle.graphs, bundle.bundle_id)
