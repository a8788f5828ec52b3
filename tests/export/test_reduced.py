"""The effect of reduced precision on patients; it must not be shipped if the effect is too large."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from export.parity import ParityError
from export.precision import proof as reduced
from export.precision.proof import Change, check, compare
from infer.bundle.load import REFERENCE, Bundle, load_bundle
from infer.bundle.manifest import LARGEST_CHANGE, Ensemble, OperatingPoint
from infer.cohort.patient import Cohort
from infer.cohort.patients import read_cohort
from infer.errors import UsageError
from infer.members.member import Precision
from infer.scoring.ensemble import decide_patient
from infer.scoring.result import PatientResult
from tests.bundles import INT8
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("drawn") / "patients"
    write_cohort(folder, make_patients(3, seed=5, images=(12, 14)), seed=5, labels=False)
    return cohort_in(folder)


def cohort_in(folder: Path) -> Cohort:
    return read_cohort(folder, load_bundle(REFERENCE).manifest.plausible, reference_date=REFERENCE_DATE)


def test_what_changes_too_much_does_not_ship(drawn: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(REFERENCE)
    found = check(bundle, drawn, "int8")
    assert (found.patients, found.decisions) == (3, 0)
    assert 0 < found.probability < LARGEST_CHANGE
    monkeypatch.setattr(reduced, "LARGEST_CHANGE", found.probability / 2)
    with pytest.raises(ParityError, match=r"0 decisions of 3 patients .* Export without --reduced"):
        check(bundle, drawn, "int8")


@pytest.mark.parametrize("change", [Change(3, 0.0, 1), Change(3, float("nan"), 0), Change(3, 0.0101, 0)])
def test_a_changed_decision_or_probability_does_not_ship(
    drawn: Cohort, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    monkeypatch.setattr(reduced, "compare", lambda *_: change)
    with pytest.raises(ParityError, match="Export without --reduced"):
        check(load_bundle(REFERENCE), drawn, "int8")


def test_decisions_are_compared_at_every_operating_point(drawn: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a threshold of one operating point between a patient's two probabilities, one decision changes."""
    bundle = load_bundle(REFERENCE)
    ways = []

    def seen(probability: float, apart: float, ensemble: Ensemble, point: str) -> str:
        ways.append((probability, apart))
        return decide_patient(probability, apart, ensemble, point)

    monkeypatch.setattr(reduced, "decide_patient", seen)
    assert check(bundle, drawn, "int8").decisions == 0
    assert len(ways) == 2 * 3 * len(bundle.manifest.ensemble.operating_points)
    first, second = ways[0][0], ways[1][0]
    assert first != second
    between = OperatingPoint((first + second) / 2, 1.0)
    ensemble = bundle.manifest.ensemble
    points = {**ensemble.operating_points, "sensitivity-98": between}
    altered = msgspec.structs.replace(ensemble, operating_points=points)
    manifest = msgspec.structs.replace(bundle.manifest, ensemble=altered)
    with pytest.raises(ParityError, match="int8 changes 1 decisions of 3 patients"):
        check(replace(bundle, manifest=manifest), drawn, "int8")
    # The bound on disagreement between the patient's two: both decisions change where the patient would be decided.
    sure = dict.fromkeys(("balanced", "sensitivity-95"), OperatingPoint(0.0, 0.0))
    equal = dict.fromkeys(ensemble.weights, 1 / len(ensemble.weights))  # so that several members have a say
    several = msgspec.structs.replace(ensemble, operating_points=sure, weights=equal)
    ways.clear()
    compare(replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, ensemble=several)), drawn, "int8")
    assert ways[0][1] != ways[1][1]
    bound = (ways[0][1] + ways[1][1]) / 2
    altered = msgspec.structs.replace(several, disagreement=bound)
    manifest = msgspec.structs.replace(bundle.manifest, ensemble=altered)
    with pytest.raises(ParityError, match="int8 changes 2 decisions of 3 patients"):
        check(replace(bundle, manifest=manifest), drawn, "int8")


def test_who_is_scored_one_way_alone_is_a_changed_decision(drawn: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remaining patients must be compared with themselves, not with their neighbours in the list."""
    bundle, works = load_bundle(REFERENCE), reduced._scores
    whole = reduced.compare(bundle, drawn, "int8")

    def without(which: int) -> Callable[[Bundle, Cohort, Precision], list[PatientResult]]:
        def scores(one: Bundle, cohort: Cohort, precision: Precision) -> list[PatientResult]:
            found = works(one, cohort, precision)
            place = which if precision == "int8" else 0
            found[place] = msgspec.structs.replace(found[place], scores=None)
            return found

        return scores

    monkeypatch.setattr(reduced, "_scores", without(2))
    found = reduced.compare(bundle, drawn, "int8")
    assert (found.patients, found.decisions) == (1, 2)
    assert found.probability <= whole.probability
    monkeypatch.setattr(reduced, "_scores", without(0))
    assert reduced.compare(bundle, drawn, "int8").decisions == 0


def test_a_cohort_of_whom_nobody_is_scored_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "clinical_annotation.csv").write_text("ID,GENDER,DOB,LYMPH_COUNT\nP1,F,1/1/1950,5\n")
    with pytest.raises(UsageError, match="no patient in this cohort can be scored"):
        check(load_bundle(REFERENCE), cohort_in(tmp_path), "int8")


def test_float32_is_not_compared_with_itself(drawn: Cohort) -> None:
    """If a graph cannot be loaded, scoring falls back to float32, and there would be no difference."""
    bundle = load_bundle(REFERENCE)
    broken = replace(bundle, graphs=bundle.graphs | {INT8: b"no graph"})
    with pytest.raises(ParityError, match=r"int8 does not run here: .*cannot load this graph"):
        check(broken, drawn, "int8")
    without = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, int8=None))
    with pytest.raises(ParityError, match="int8 does not run here: the bundle has none"):
        check(without, drawn, "int8")
