"""A fifth member, added by one class a package and one line in each registry, goes all the way to the CSV files.

And members that were fitted on another backbone go nowhere.
"""

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from torch import Tensor

from export.graphs import GraphPlan
from export.members import registry as export_registry
from export.members.backbone import fitted_with
from export.members.member import Inputs, MemberCard, MemberExport
from export.pipeline import export_bundle
from infer.bundle.load import load_bundle
from infer.column import Column
from infer.errors import UsageError
from infer.members import registry as infer_registry
from infer.members.member import Floats, GraphForm, Mean, Member, Opinion, RunGraph
from infer.options import Options
from infer.run import run
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort
from tests.train_fixtures import TrainedRun
from train.data.bags import Bags, load_crops
from train.ensemble.fit import input_digests, train_ensemble
from train.members import registry as train_registry
from train.members.candidate import Candidate
from train.members.embedding import weights_digest
from train.members.training import MemberJob, MemberTraining, NestedJob


def of_blue(blue: Any) -> Any:
    """A probability from the mean of the pictures' blue, 0 to 255."""
    return 1 / (1 + np.exp((blue - 180) / 10))


class Blueness(Member[Mean]):
    """No graph: the darker the nuclei's blue, the more malignant."""

    name = "blueness"
    title = "blueness"
    picture_columns = (Column("blue", "Mean blue of the picture", "0 to 255", ".3f"),)

    @property
    def graphs(self) -> dict[str, GraphForm]:
        return {}

    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        return {"blue": np.asarray(pictures)[..., 2].mean(axis=(1, 2))}

    def begin(self) -> Mean:
        return Mean()

    def add(self, sums: Mean, seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        sums.add(float(seen["blue"][row]))
        return {"blue": float(seen["blue"][row])}

    def conclude(self, sums: Mean, run: RunGraph, clinical: Floats) -> Opinion:
        return Opinion(float(of_blue(sums.value)), tuple(of_blue(sums.without_each()).tolist()))

    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        return {"blueness": np.array([opinion.probability for opinion in opinions])}


def of_bags(bags: Bags) -> Any:
    return of_blue(bags.mean_colours()[:, 2])


def train_blueness(job: MemberJob) -> None:
    facts = {"patient_id": job.bags.patient_ids, "fold": job.folds, "label": job.bags.labels}
    (job.run / "blueness").mkdir()
    table = pd.DataFrame({**facts, "probability": of_bags(job.bags), "pictures_only": of_bags(job.bags)})
    table.to_csv(job.run / "blueness/out_of_fold.csv", index=False)


def candidate(job: NestedJob) -> Candidate:
    return Candidate("blueness", {}, lambda training, asked, path: of_bags(job.bags)[asked])


TRAINING = MemberTraining(
    "blueness",
    "blueness",
    "blueness",
    "",
    train_blueness,
    lambda run: [],
    candidate,
    numbers=lambda recipe, seed: {},
)


class BluenessExport(MemberExport):
    name = "blueness"

    @classmethod
    def load(cls, run: Path) -> Self:
        return cls()

    @property
    def plans(self) -> list[GraphPlan]:
        return []

    def inputs(self, images: Tensor, clinical: Tensor, features: Tensor) -> dict[str, Inputs]:
        return {}

    def section(self) -> dict[str, Any]:
        return {}

    def card(self, run: Path) -> MemberCard:
        return MemberCard(self.name, "how blue the nuclei are", "the same", caveats=("Blue ink misleads it.",))


@pytest.fixture
def five_members(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry, fifth in ((infer_registry, Blueness), (train_registry, TRAINING), (export_registry, BluenessExport)):
        monkeypatch.setattr(registry, "MEMBERS", [*registry.MEMBERS, fifth])
    return


@pytest.mark.usefixtures("five_members")
def test_a_fifth_member_reaches_bundle_card_csv_files_and_run_json(trained_run: TrainedRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run.run, folder)
    bags = load_crops(folder)
    folds = pd.read_csv(folder / "folds.csv")["fold"].to_numpy(np.int64)
    TRAINING.train(MemberJob(bags, folds, folder, None, 0, None))  # type: ignore[arg-type]
    figures = train_ensemble(bags, folds, folder)
    assert {"blueness", "blueness, pictures only"} <= set(figures)

    export_bundle(folder, tmp_path / "bundle", replace=False)
    bundle = load_bundle(tmp_path / "bundle")
    assert set(bundle.manifest.members) == {"baseline", "blueness", "imagenet", "moe", "scan"}
    card = " ".join((tmp_path / "bundle/MODEL_CARD.md").read_text().split())
    assert "Five members: a CNN on single pictures; " in card
    assert "; and how blue the nuclei are. The result is the weighted mean of their calibrated probabilities." in card
    assert "blueness: the same." in card
    assert "Blue ink misleads it." in card
    weight = bundle.manifest.ensemble.weights["blueness"]
    assert f"| blueness | {weight:.3f} |" in card

    write_cohort(tmp_path / "patients", make_patients(3, seed=21, images=(10, 12)), seed=21, labels=False)
    out = tmp_path / "out"
    options = Options(
        tmp_path / "patients", out, bundle=tmp_path / "bundle", device="cpu", reference_date=REFERENCE_DATE
    )
    assert run(options) == 0
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (out / "images.csv").open(newline="") as file:
        images = list(csv.DictReader(file))
    assert list(rows[0])[-2:] == ["run_ended", "blueness_probability"]
    calibration = bundle.manifest.ensemble.calibration["blueness"]
    for row in rows:
        blue = np.mean([float(image["blue"]) for image in images if image["patient_id"] == row["patient_id"]])
        raw = float(of_blue(blue))
        expected = 1 / (1 + np.exp(-(calibration.slope * np.log(raw / (1 - raw)) + calibration.intercept)))
        assert float(row["blueness_probability"]) == pytest.approx(expected, abs=1e-4)
        members = {name: float(row[f"{name}_probability"]) for name in bundle.manifest.members}
        mixed = sum(bundle.manifest.ensemble.weights[name] * value for name, value in members.items())
        assert float(row["probability_malignant"]) == pytest.approx(mixed, abs=2e-6)
    record = json.loads((out / "run.json").read_text())
    assert record["bundle"]["weights"]["blueness"] == weight


WITH = {"weights_sha256": weights_digest(), "magnification": {"crop": 112, "size": 224}}


def test_what_was_fitted_on_this_backbone_tells_its_numbers(tmp_path: Path) -> None:
    mine = {**WITH, "seed": 3}
    (tmp_path / "numbers.json").write_text(json.dumps(mine))
    assert fitted_with(tmp_path) == mine


@pytest.mark.parametrize(
    "other",
    [
        {"weights_sha256": "0" * 64},
        {"magnification": {"crop": 112, "size": 112}},
        {"magnification": {"crop": 80, "size": 224}},
    ],
)
def test_what_was_fitted_on_another_backbone_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    (tmp_path / "numbers.json").write_text(json.dumps({**WITH, **other}))
    with pytest.raises(UsageError, match=r": was fitted on another backbone\. Run `python -m train all` again"):
        fitted_with(tmp_path)


@pytest.mark.parametrize("folder", ["cells", "moe", "imagenet"])
def test_no_member_fitted_on_another_backbone_is_exported(
    trained_run: TrainedRun, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ = tmp_path / "run"
    shutil.copytree(trained_run.run, run_)
    path = run_ / folder / "numbers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights_sha256": "0" * 64}))
    (run_ / "ensemble/inputs.json").write_text(json.dumps(input_digests(run_)))
    monkeypatch.setattr("export.pipeline.export_graph", lambda plan: pytest.fail("it began to export"))
    with pytest.raises(UsageError, match=rf"run/{folder}: was fitted on another backbone"):
        export_bundle(run_, tmp_path / "bundle", replace=False)
    assert not (tmp_path / "bundle").exists()
