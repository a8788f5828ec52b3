"""Bundles of small cohorts, end to end: without a member that could not be trained, and with fewer clusters."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch

from export.card.few import few_patients
from export.members.cells import padded
from export.pipeline import export_bundle
from infer.bundle.load import Bundle, load_bundle
from infer.errors import UsageError
from infer.options import Options
from infer.run import run as score
from tests.bundles import GRAPHS
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort
from tests.train_fixtures import SMALL_BATCHES, TrainedRun
from train.core.fitting import TrainingError
from train.data.bags import load_crops
from train.ensemble.fit import train_ensemble
from train.members import registry
from train.members.absent import train_or_leave_out
from train.members.cells import clustering
from train.members.cells import member as cells
from train.members.recipes import Recipe
from train.members.scan.measures import Collapse
from train.members.training import MemberJob

FEW = replace(SMALL_BATCHES, cells=replace(SMALL_BATCHES.cells, clusters=7, fused=5))


def retrained(trained: TrainedRun, run: Path, recipe: Recipe = SMALL_BATCHES) -> Path:
    """A copy of a finished run with other cell classes, and an ensemble fitted on them."""
    shutil.copytree(trained.run, run)
    shutil.rmtree(run / "cells")
    bags, folds = load_crops(run), pd.read_csv(run / "folds.csv")["fold"].to_numpy(np.int64)
    train_or_leave_out(cells.TRAINING, MemberJob(bags, folds, run, recipe, 0, torch.device("cpu")))
    train_ensemble(bags, folds, run)
    return run


def collapse(*_: object) -> None:
    raise Collapse("cells: forced")


@pytest.fixture(scope="module")
def without(trained_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which SCAN and k-means collapsed."""
    with patch.object(clustering, "_by_scan", collapse), patch.object(clustering, "nearest_centroid", collapse):
        return retrained(trained_run, tmp_path_factory.mktemp("without") / "run")


def scored(bundle: Path, folder: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Predictions and images of drawn patients, with a report."""
    write_cohort(folder / "patients", make_patients(6, seed=21, images=(10, 14)), seed=21, labels=False)
    options = Options(
        folder / "patients", folder / "out", bundle=bundle, device="cpu", reference_date=REFERENCE_DATE, report=True
    )
    assert score(options) == 0
    tables = []
    for name in ("predictions.csv", "images.csv"):
        with (folder / "out" / name).open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return tables[0], tables[1]


def card_of(bundle: Path) -> str:
    return " ".join((bundle / "MODEL_CARD.md").read_text().split())


def test_a_bundle_without_cell_classes_is_exported_scored_and_says_so(without: Path, tmp_path: Path) -> None:
    sentence = "The member scan is left out, because its training failed: cells: forced."
    metrics = json.loads((without / "ensemble/metrics.json").read_text())
    assert metrics["left out"] == {"scan": 1.0}
    assert json.loads((without / "ensemble/notes.json").read_text()) == [sentence]
    export_bundle(without, tmp_path / "bundle", replace=False)
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert set(manifest.members) == {"baseline", "moe", "imagenet"}
    assert set(manifest.graphs) == set(GRAPHS) - {"scan.onnx"}
    assert sum(manifest.ensemble.weights.values()) == pytest.approx(1)
    card = card_of(tmp_path / "bundle")
    assert f"- {sentence}" in card
    assert "Three members: " in card
    assert "| scan |" not in card

    predictions, images = scored(tmp_path / "bundle", tmp_path)
    assert not [name for name in (*predictions[0], *images[0]) if "scan" in name or "cell_class" in name]
    for row in predictions:
        mixed = sum(manifest.ensemble.weights[name] * float(row[f"{name}_probability"]) for name in manifest.members)
        assert float(row["probability_malignant"]) == pytest.approx(mixed, abs=2e-6)
    drift = json.loads((tmp_path / "out/drift.json").read_text())
    assert "share_0" not in json.dumps(drift)
    pages = [path.read_text() for path in (tmp_path / "out/report").rglob("p*.html")]
    assert len(pages) == 6
    assert not [page for page in pages if "SCAN" in page]


def test_an_ensemble_fitted_with_the_member_is_not_exported_without_it(trained_run: TrainedRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run.run, run)
    (run / "cells/absent.txt").write_text("It is gone.\n")
    with pytest.raises(UsageError, match=r"cells/.* changed after the ensemble"):
        export_bundle(run, tmp_path / "bundle", replace=False)


def test_without_any_member_there_is_no_ensemble(trained_run: TrainedRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run.run, run)
    for member in registry.MEMBERS:
        (run / member.folder / "absent.txt").write_text("It is gone.\n")
    with pytest.raises(TrainingError, match="no member could be trained"):
        train_ensemble(load_crops(run), np.zeros(60, np.int64), run)


def test_k_means_in_scans_place_and_fewer_clusters_fit_the_same_graph(trained_run: TrainedRun, tmp_path: Path) -> None:
    with patch.object(clustering, "_by_scan", collapse):
        run = retrained(trained_run, tmp_path / "run", FEW)
    known, _ = cells.load(run)
    assert known.network.dimensions.clusters == 7
    export_bundle(run, tmp_path / "bundle", replace=False)
    bundle: Bundle = load_bundle(tmp_path / "bundle")
    section = bundle.manifest.members["scan"]
    assert section["class_fusion"][:7] == known.fusion.tolist()
    assert sorted(set(section["class_fusion"])) == list(range(15))
    assert "could not be learnt in 6 of 6 trainings, and k-means on the same features" in card_of(tmp_path / "bundle")

    predictions, images = scored(tmp_path / "bundle", tmp_path)
    assert {int(row["cell_class"]) for row in images} <= set(range(5))
    assert len({row["cell_class"] for row in images}) > 1
    assert all(0 <= float(row["scan_probability"]) <= 1 for row in predictions)


def test_classes_that_are_added_for_the_bundle_are_never_chosen(trained_run: TrainedRun) -> None:
    seen = np.load(next(trained_run.run.glob("features-*.npy")))[:-1]
    bags = load_crops(trained_run.run)
    for clusters, fused in ((2, 2), (7, 5), (19, 14), (20, 15)):
        recipe = replace(SMALL_BATCHES.cells, clusters=clusters, fused=fused)
        few = clustering.train_cells(seen, bags.patient_of_image(), recipe, 0)
        many = padded(few)
        assert many.of(seen).tolist() == few.of(seen).tolist()
        assert sorted(set(many.fusion.tolist())) == list(range(15))
        others = 50 * np.random.default_rng(0).normal(size=seen.shape).astype(np.float32)
        assert many.of(others).tolist() == few.of(others).tolist()
        assert (many is few) == (clusters == 20)


def test_few_patients_are_warned_of(trained_run: TrainedRun, without: Path, tmp_path: Path) -> None:
    export_bundle(without, tmp_path / "bundle", replace=False)
    manifest = load_bundle(tmp_path / "bundle").manifest
    (sentence,) = few_patients(manifest)
    assert sentence in card_of(tmp_path / "bundle")
    assert "24 are reactive, so that a single one of them moves a sensitivity or specificity above by 4%" in sentence
    assert not few_patients(load_bundle(Path("infer/reference")).manifest)
