"""The influence of a picture: the log odds with it minus the log odds without it, by deleting its file."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from infer.bundle.load import Bundle, load_bundle
from infer.bundle.manifest import Calibration, Ensemble, OperatingPoint
from infer.cohort.patients import read_cohort
from infer.engine.fallback import Engine
from infer.engine.sessions import CPU, Device
from infer.members.member import Mean, Opinion
from infer.scoring.cohort import score_patients
from infer.scoring.ensemble import log_odds
from infer.scoring.influence import influences
from infer.scoring.result import ImageResult, PatientResult
from tests.infer.runs import TINY, Outcome, keep_patients, link_cohort, score
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort

REAL = os.environ.get("LYMPHO_REAL_PATIENTS")
EXACT = 1e-5  # in log odds
WEIGHTS = {"a": 0.75, "b": 0.25}
ENSEMBLE = Ensemble(
    {"a": Calibration(1.0, 0.0, 1e-12), "b": Calibration(2.0, -1.0, 1e-12)},
    WEIGHTS,
    {"balanced": OperatingPoint(0.5, 0.5)},
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten patients of 16 to 20 pictures."""
    folder = tmp_path_factory.mktemp("drawn") / "patients"
    write_cohort(folder, make_patients(10, seed=11, images=(16, 20)), seed=11, labels=False, size=128)
    return folder


def results(folder: Path, bundle: Bundle) -> dict[str, PatientResult]:
    engine = Engine(bundle, Device(CPU, "test"), None, 2)
    cohort = read_cohort(folder, bundle.manifest.plausible, reference_date=REFERENCE_DATE)
    found = score_patients(cohort.folder, cohort.patients, engine, bundle.manifest, "balanced", 1)
    return {result.patient_id: result for result in found}


def odds(result: PatientResult, bundle: Bundle) -> tuple[float, dict[str, float]]:
    """Log odds of the ensemble and of each member, from the result's probabilities."""
    assert result.scores is not None
    members = {name: np.log(p) - np.log1p(-p) for name, p in result.scores.members.items()}
    return float(log_odds(members, bundle.manifest.ensemble)), members


def without(folder: Path, gone: dict[str, Sequence[str]], copy: Path) -> Path:
    """A copy of a cohort without some pictures of each patient; the other patients are left out."""
    shutil.copytree(folder, copy)
    for patient_id, names in gone.items():
        for name in names:
            (copy / patient_id / name).unlink()
    return keep_patients(copy, *gone)


def check_one_picture_each(folder: Path, patients: Sequence[str], bundle: Bundle, tmp_path: Path) -> None:
    """Delete another picture of each patient in three turns, and score again."""
    before = results(folder, bundle)
    used = {one: [image for image in before[one].images if not image.reason] for one in patients}
    for turn in range(3):
        images = {one: used[one][(turn * 5 + row) % 12] for row, one in enumerate(patients)}
        copy = without(folder, {one: [image.image] for one, image in images.items()}, tmp_path / str(turn))
        after = results(copy, bundle)
        for one, image in images.items():
            (whole, members), (less, members_less) = odds(before[one], bundle), odds(after[one], bundle)
            assert image.influence == pytest.approx(whole - less, abs=EXACT)
            for name in members:
                assert image.influence_of[name] == pytest.approx(members[name] - members_less[name], abs=EXACT)
    assert max(abs(image.influence or 0) for result in before.values() for image in result.images) > 100 * EXACT


def test_deleting_a_file_changes_the_log_odds_by_its_influence(drawn: Path, tmp_path: Path) -> None:
    bundle = load_bundle(TINY)
    check_one_picture_each(drawn, [f"S{number:03d}" for number in range(1, 11)], bundle, tmp_path)


def test_the_same_with_the_bundle_that_ships(drawn: Path, bundle: Bundle, tmp_path: Path) -> None:
    check_one_picture_each(drawn, [f"S{number:03d}" for number in range(1, 11)], bundle, tmp_path)


@pytest.mark.skipif(REAL is None, reason="LYMPHO_REAL_PATIENTS names no folder of real patients")
def test_the_same_of_five_real_patients(bundle: Bundle, tmp_path: Path) -> None:
    real = Path(str(REAL))
    five = sorted(path.name for path in real.iterdir() if path.is_dir())[:5]
    kept = keep_patients(link_cohort(real, tmp_path / "five"), *five)
    check_one_picture_each(kept, five, bundle, tmp_path)


def test_the_five_most_influential_pictures_move_the_result_more_than_five_random_ones(
    drawn: Path, tmp_path: Path
) -> None:
    """In whichever direction the patient's pictures move it more, and in the mean over ten patients."""
    bundle = load_bundle(TINY)
    before = results(drawn, bundle)
    top: dict[str, Sequence[str]] = {}
    at_random: dict[str, Sequence[str]] = {}
    for one, result in before.items():
        sorted_by = sorted(result.images, key=lambda image: image.influence or 0)
        ends = sorted_by[:5], sorted_by[-5:]
        top[one] = [image.image for image in max(ends, key=lambda end: abs(sum(i.influence or 0 for i in end)))]
        names = [image.image for image in result.images]
        at_random[one] = [str(name) for name in np.random.RandomState(0).choice(names, 5, replace=False)]
    moved = []
    for kind, gone in (("top", top), ("random", at_random)):
        after = results(without(drawn, gone, tmp_path / kind), load_bundle(TINY))
        moved.append({one: abs(odds(before[one], bundle)[0] - odds(after[one], bundle)[0]) for one in before})
    assert all(moved[0][one] > moved[1][one] for one in before)


def test_influences_add_up_to_zero_where_a_member_is_a_mean_of_log_odds() -> None:
    """Leave-one-out of a mean: the values' deviations from their mean, divided by one picture less."""
    values = Mean()
    for value in (1.0, 2.0, 6.0):
        values.add(value)
    np.testing.assert_allclose(values.value - values.without_each(), [-1.0, -0.5, 1.5])


def test_a_mean_of_arrays_leaves_out_each_in_double_precision() -> None:
    rows = np.random.RandomState(0).randn(7, 5).astype(np.float32)
    mean = Mean()
    for row in rows:
        mean.add(row)
    expected = [np.delete(rows.astype(np.float64), one, axis=0).mean(axis=0) for one in range(7)]
    np.testing.assert_allclose(mean.without_each(), expected, rtol=0, atol=1e-15)


def test_influences_by_hand() -> None:
    def sigmoid(logit: float) -> float:
        return 1 / (1 + float(np.exp(-logit)))

    raw = {"a": (0.9, (0.8, 0.7)), "b": (0.3, (0.3, 0.6))}
    found = influences({name: Opinion(p, others) for name, (p, others) in raw.items()}, ENSEMBLE, 2)
    assert found is not None

    def ensemble(a: float, b: float) -> float:
        p = 0.75 * a + 0.25 * sigmoid(2 * np.log(b / (1 - b)) - 1)
        return float(np.log(p / (1 - p)))

    expected = [ensemble(0.9, 0.3) - ensemble(0.8, 0.3), ensemble(0.9, 0.3) - ensemble(0.7, 0.6)]
    np.testing.assert_allclose(found.ensemble, expected)
    np.testing.assert_allclose(found.members["b"], [0, 2 * (np.log(3 / 7) - np.log(6 / 4))], atol=1e-12)


def test_influences_of_a_patient_whose_probability_is_one_to_all_digits() -> None:
    """In single precision both would be 1.0, and the influence 0."""
    opinions = {name: Opinion(1 - 1e-9, (1 - 2e-9, 1 - 1e-9)) for name in WEIGHTS}
    found = influences(opinions, ENSEMBLE, 2)
    assert found is not None
    np.testing.assert_allclose(found.members["a"], [np.log(2), 0], atol=1e-6)
    assert found.ensemble[0] > 0.6


def test_a_patient_of_one_picture_has_no_influence() -> None:
    assert influences({"a": Opinion(0.4), "b": Opinion(0.3)}, ENSEMBLE, 1) is None


def test_a_member_that_leaves_out_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="b: 0 probabilities without a picture, for 2 pictures"):
        influences({"a": Opinion(0.4, (0.4, 0.5)), "b": Opinion(0.3)}, ENSEMBLE, 2)


def test_the_column_is_last_and_empty_for_rejected_pictures_and_patients_without_a_result(
    cohort: Path, tmp_path: Path
) -> None:
    (cohort / "S001" / sorted(os.listdir(cohort / "S001"))[0]).unlink()
    (cohort / "S001" / "a.jpg").write_bytes(b"no picture")
    shutil.rmtree(cohort / "S002")
    (cohort / "S002").mkdir()
    outcome: Outcome = score(cohort, tmp_path / "out", bundle=TINY)
    assert list(outcome.images[0])[-1] == "influence"
    for row in outcome.images:
        assert bool(row["influence"]) == (row["status"] == "used")


def test_a_result_that_is_not_finite_is_recognised() -> None:
    assert ImageResult("a", influence=0.5, influence_of={"x": 1.0}).finite
    assert not ImageResult("a", influence=0.5, influence_of={"x": float("inf")}).finite
    assert not ImageResult("a", influence=float("nan")).finite
