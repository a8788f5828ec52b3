"""A bundle decides which members exist: one more, one less or a single one, without other changes to the program."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from infer.bundle.manifest import Calibration
from infer.column import Column
from infer.engine.self_test import self_test_images
from infer.errors import BundleError
from infer.members.member import Floats, GraphForm, Mean, Member, Opinion, RunGraph
from infer.members.registry import MEMBERS, names
from tests.crops import read_crop
from tests.infer.runs import TINY, Outcome, score, tiny_manifest, write_bundle

OF_THE_ENSEMBLE = {
    "probability_malignant",
    "decision",
    "disagreement",
    "disagreement_of_weighted",
    "bundle",
    "influence",
}  # columns of all members together
SCALE, CALIBRATION, WEIGHT = 0.75, Calibration(slope=1.5, intercept=0.25), 0.2


class RednessSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scale: float


class Redness(Member[Mean]):
    """The redder a picture, the more malignant."""

    name = "redness"
    title = "redness"
    Section = RednessSection
    picture_columns = (Column("redness", "How red the picture is", "", ".6f"),)

    @property
    def graphs(self) -> dict[str, GraphForm]:
        return {}

    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        return {"red": self.section.scale * pictures[..., 0].mean(axis=(1, 2)) / 255}

    def begin(self) -> Mean:
        return Mean()

    def add(self, sums: Mean, seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        sums.add(float(seen["red"][row]))
        return {"redness": float(seen["red"][row])}

    def conclude(self, sums: Mean, run: RunGraph, clinical: Floats) -> Opinion:
        return Opinion(sums.value, tuple(sums.without_each().tolist()))

    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        return {"redness": seen["red"]}


@pytest.fixture(scope="module")
def plain(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The pristine cohort, scored with the unchanged tiny bundle."""
    return score(pristine, tmp_path_factory.mktemp("plain") / "out", bundle=TINY)


def with_redness() -> dict[str, Any]:
    manifest = tiny_manifest()
    test, ensemble = manifest["self_test"], manifest["ensemble"]
    manifest["members"]["redness"] = {"scale": SCALE}
    ensemble["calibration"]["redness"] = {"slope": CALIBRATION.slope, "intercept": CALIBRATION.intercept}
    ensemble["weights"] = {name: (1 - WEIGHT) * weight for name, weight in ensemble["weights"].items()}
    ensemble["weights"]["redness"] = WEIGHT
    images = self_test_images(test["seed"], test["images"], manifest["crop_size"], manifest["drift"]["rgb_mean"])
    test["expected"]["redness"] = [redness(image) for image in images]
    return manifest


def of_some(*kept: str) -> dict[str, Any]:
    """The manifest with only these members. Graphs and outputs begin with their member's name."""
    manifest = tiny_manifest()
    ensemble, test = manifest["ensemble"], manifest["self_test"]
    for name in set(names()) - set(kept):
        del manifest["members"][name], ensemble["calibration"][name], ensemble["weights"][name]
        manifest["graphs"] = {file: digest for file, digest in manifest["graphs"].items() if not file.startswith(name)}
        test["expected"] = {output: of for output, of in test["expected"].items() if not output.startswith(name)}
    if "scan" not in kept:  # whose classes they are
        del manifest["reference"]["appearance"]
    if not {"scan", "moe", "imagenet"} & set(kept):
        del manifest["graphs"]["backbone.onnx"]
    total = sum(ensemble["weights"].values())
    weights = ensemble["weights"]
    # A member that has no weight in the bundle that ships has all of it when it is alone.
    ensemble["weights"] = {name: weight / total if total else 1 / len(kept) for name, weight in weights.items()}
    return manifest


def redness(crop: Any) -> float:
    return SCALE * int(crop[:, :, 0].sum()) / (255 * 112 * 112)


def assert_is_the_mean(outcome: Outcome, weights: dict[str, float]) -> None:
    """Check probability and disagreement; each number is rounded to 6 digits."""
    for row in outcome.predictions.values():
        members = {name: float(row[f"{name}_probability"]) for name in weights}
        mean = sum(weight * members[name] for name, weight in weights.items())
        assert float(row["probability_malignant"]) == pytest.approx(mean, abs=1.01e-6)
        spread = max(members.values()) - min(members.values())
        assert float(row["disagreement"]) == pytest.approx(spread, abs=1.51e-6)


def without(columns: set[str], rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{column: cell for column, cell in row.items() if column not in columns} for row in rows]


def numbers(outcome: Outcome, *columns: str) -> list[dict[str, str]]:
    """predictions.csv without some columns and those of all members together."""
    return without({*columns, *OF_THE_ENSEMBLE}, list(outcome.predictions.values()))


def test_a_fifth_member_needs_a_class_and_a_place_in_the_list(
    plain: Outcome, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = with_redness()
    monkeypatch.setattr("infer.members.registry.MEMBERS", [*MEMBERS, Redness])
    outcome = score(pristine, tmp_path / "out", bundle=write_bundle(tmp_path / "bundle", manifest))
    assert outcome.code == 0
    columns, before = list(outcome.predictions["S001"]), list(plain.predictions["S001"])
    assert columns == [*before, "redness_probability"]
    assert list(outcome.images[0]) == [*list(plain.images[0])[:-1], "redness", "influence"]
    for patient_id, row in outcome.predictions.items():
        crops = [read_crop(path, pristine.resolve(), 112) for path in sorted((pristine / patient_id).iterdir())]
        red = [redness(crop) for crop in crops]
        found = [float(image["redness"]) for image in outcome.images if image["patient_id"] == patient_id]
        assert found == pytest.approx(red, abs=5.1e-7)
        share = sum(red) / len(red)
        odds = math.exp(CALIBRATION.intercept) * (share / (1 - share)) ** CALIBRATION.slope
        assert float(row["redness_probability"]) == pytest.approx(odds / (1 + odds), abs=5.1e-7)
    assert len({row["redness_probability"] for row in outcome.predictions.values()}) == len(outcome.predictions)
    weights = manifest["ensemble"]["weights"]
    assert outcome.record["bundle"]["weights"] == weights
    assert list(outcome.record["bundle"]["weights"]) == [*names()]
    assert_is_the_mean(outcome, weights)
    assert numbers(outcome, "redness_probability") == numbers(plain)
    assert without({"redness", "influence"}, outcome.images) == without({"influence"}, plain.images)


def test_what_a_fifth_member_computes_is_put_to_the_self_test(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = with_redness()
    manifest["self_test"]["expected"]["redness"][-1] += 0.01
    monkeypatch.setattr("infer.members.registry.MEMBERS", [*MEMBERS, Redness])
    with pytest.raises(BundleError, match="self-test failed on CPUExecutionProvider: redness differs by "):
        score(pristine, tmp_path / "out", bundle=write_bundle(tmp_path / "bundle", manifest))


def test_a_member_that_the_program_does_not_know_is_refused(pristine: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"unknown member redness: use the matching program version$") as caught:
        score(pristine, tmp_path / "out", bundle=write_bundle(tmp_path / "bundle", with_redness()))
    assert caught.value.exit_code == 5
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_scan_has_none_of_its_columns(plain: Outcome, pristine: Path, tmp_path: Path) -> None:
    manifest = of_some("baseline", "moe", "imagenet")
    assert len(manifest["graphs"]) == 6
    outcome = score(pristine, tmp_path / "out", bundle=write_bundle(tmp_path / "bundle", manifest))
    assert outcome.code == 0
    assert "scan_probability" in plain.predictions["S001"]
    columns = [column for column in plain.predictions["S001"] if column != "scan_probability"]
    assert list(outcome.predictions["S001"]) == columns
    assert numbers(outcome) == numbers(plain, "scan_probability")
    columns_of_scan = {"cell_class", "cell_class_confidence"}
    assert without({"influence"}, outcome.images) == without({*columns_of_scan, "influence"}, plain.images)
    assert outcome.record["bundle"]["weights"] == manifest["ensemble"]["weights"]
    assert_is_the_mean(outcome, manifest["ensemble"]["weights"])


@pytest.mark.parametrize("name", names())
def test_a_member_alone_is_the_ensemble(plain: Outcome, pristine: Path, tmp_path: Path, name: str) -> None:
    outcome = score(pristine, tmp_path / "out", bundle=write_bundle(tmp_path / "bundle", of_some(name)))
    assert outcome.code == 0
    others = {f"{other}_probability" for other in names() if other != name}
    others |= {f"{other}_image_gate" for other in ("moe", "imagenet") if other != name}
    assert numbers(outcome) == numbers(plain, *others)
    for row in outcome.predictions.values():
        assert row["status"] == "scored"
        assert (row["probability_malignant"], row["disagreement"]) == (row[f"{name}_probability"], "0.000000")
    (kind,) = [kind for kind in MEMBERS if kind.name == name]
    own = [column.name for column in kind.picture_columns]
    assert list(outcome.images[0]) == ["patient_id", "image", "status", "reason", *own, "influence"]
    kept = [{column: row[column] for column in outcome.images[0]} for row in plain.images]
    assert without({"influence"}, outcome.images) == without({"influence"}, kept)
    assert outcome.record["bundle"]["weights"] == {name: 1.0}


def test_members_have_names_and_columns_of_their_own() -> None:
    assert len(set(names())) == len(names())
    for columns in (
        [column.name for kind in MEMBERS for column in (kind.probability_column(), *kind.further_columns())],
        [column.name for kind in MEMBERS for column in kind.picture_columns],
    ):
        assert len(set(columns)) == len(columns)


def test_a_mean_is_taken_value_by_value() -> None:
    mean = Mean()
    for value in ([1.0, 2.0], [3.0, 6.0]):
        mean.add(np.array(value))
    np.testing.assert_array_equal(mean.value, [2.0, 4.0])
