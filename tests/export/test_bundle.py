"""From a finished run to a bundle that the runtime accepts and that gives the same results as torch."""

import csv
import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.special import expit, logit
from scipy.stats import norm

from export import __main__ as command
from export import manifest as export_module
from export.parity import ParityError
from export.pipeline import _nested_is_current, export_bundle
from infer.bundle.load import load_bundle
from infer.bundle.manifest import Manifest
from infer.engine.fallback import Engine
from infer.engine.networks import Networks
from infer.engine.self_test import self_test
from infer.engine.sessions import CPU, Device
from infer.errors import UsageError
from infer.members.member import Precision
from infer.options import Options
from infer.run import run
from tests.bundles import ALL_GRAPHS, GRAPHS, INT8_OUTPUTS, MEMBERS, scan_section
from tests.synthetic import REFERENCE_DATE, SyntheticPatient, make_patients, write_cohort
from tests.train_fixtures import DATE, EPOCHS, IMAGES, OPTIONS, PATIENTS, SMALL_BATCHES, TrainedRun, train
from train.ensemble.fit import input_digests
from train.members import registry
from train.members.baseline import load_baseline
from train.members.cells.network import load_cells
from train.members.embedding import load_backbone, weights_digest
from train.members.experts import load_experts
from train.members.imagenet import MAGNIFICATION, load_imagenet
from train.members.recipes import adapted

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """A cohort of synthetic patients and the runtime's results for it."""

    patients: list[SyntheticPatient]
    folder: Path
    rows: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def bundle(trained_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "bundle"
    export_bundle(trained_run.run, folder, replace=False)
    return folder


@pytest.fixture(scope="module")
def scored(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    base = tmp_path_factory.mktemp("scored")
    patients = make_patients(8, seed=21, images=(10, 40))  # so that patients share batches of 32
    write_cohort(base / "patients", patients, seed=21, labels=False)
    options = Options(base / "patients", base / "out", bundle=bundle, device="cpu", reference_date=REFERENCE_DATE)
    assert run(options) == 0
    with (base / "out/predictions.csv").open(newline="") as file:
        return Scored(patients, base / "patients", {row["patient_id"]: row for row in csv.DictReader(file)})


def export(*arguments: object) -> int:
    """Run `python -m export` in this process."""
    with patch.object(sys, "argv", ["export", *map(str, arguments)]):
        try:
            command.main()
        except SystemExit as exit_:
            return exit_.code if isinstance(exit_.code, int) else 1
    return 0


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_runtime_takes_it(bundle: Path, trained_run: TrainedRun) -> None:
    loaded = load_bundle(bundle)
    for threads, batch in ((1, 4), (2, 32)):
        self_test(Networks(loaded, Device(CPU, "test"), batch, threads), loaded)
    assert loaded.bundle_id == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert set(files(bundle)) == {"manifest.json", "MODEL_CARD.md", "SHA256SUMS", *GRAPHS}
    assert loaded.bundle_id in (bundle / "MODEL_CARD.md").read_text()
    assert not list(bundle.parent.glob(".*.part"))


def test_checksums_are_those_of_sha256sum(bundle: Path) -> None:
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    stored = {name: digest for digest, name in (line.split("  ") for line in lines)}
    actual = {name: hashlib.sha256(data).hexdigest() for name, data in files(bundle).items() if name != "SHA256SUMS"}
    assert stored == actual


def test_the_manifest_tells_the_run(bundle: Path, trained_run: TrainedRun) -> None:
    manifest = load_bundle(bundle).manifest
    source = manifest.provenance
    assert source.recipe == f"small, epochs {EPOCHS}, {IMAGES} images a patient"
    assert (source.seed, source.reference_date) == (0, "2019-07-01")
    patients = (trained_run.run / "crops/patients.csv").read_text().splitlines()[1:]
    malignant = sum(row.split(",")[1] == "1" for row in patients)
    images = len((trained_run.run / "crops/images.csv").read_text().splitlines()) - 1
    assert source.data_summary == {
        "patients": PATIENTS,
        "malignant": malignant,
        "reactive": PATIENTS - malignant,
        "images": images,
    }
    table = (trained_run.patients / "clinical_annotation.csv").read_bytes()
    assert source.table_sha256 == hashlib.sha256(table).hexdigest()
    assert source.options["baseline.fit.epochs"] == str(EPOCHS)
    for member, folder in (("scan", "cells"), ("moe", "moe"), ("imagenet", "imagenet")):
        stated = json.loads((trained_run.run / folder / "numbers.json").read_text())
        assert source.options[f"{member}.weights_sha256"] == stated["weights_sha256"] == weights_digest()
        assert source.options[f"{member}.magnification.size"] == "224"
    assert source.options["scan.cells.components"] == str(SMALL_BATCHES.cells.components)
    assert source.options["moe.experts.seeds"] == str(SMALL_BATCHES.experts.seeds) == "2"
    assert source.options["scan.bayes.smoothing"] == str(SMALL_BATCHES.bayes.smoothing)
    assert {name.partition(".")[0] for name in source.options} == {"name", *MEMBERS}  # no number stands there twice
    assert (manifest.crop_size, manifest.magnification.network_size, manifest.opset) == (112, 224, 20)
    assert list(manifest.members) == sorted(MEMBERS)
    section = scan_section(manifest)
    assert len(section.class_fusion) == 20
    assert set(section.class_fusion) == set(range(15))
    assert section.class_fusion == json.loads((trained_run.run / "cells/fusion.json").read_text())
    assert [manifest.members[name] for name in ("baseline", "moe", "imagenet")] == [{}, {}, {}]
    for part, name in ((section.naive_bayes, "cells/naive_bayes.json"), (manifest.ensemble, "ensemble/ensemble.json")):
        assert msgspec.to_builtins(part) == json.loads((trained_run.run / name).read_text())
    assert manifest.plausible.minimum_images == 10
    assert (manifest.plausible.lymph_count.high, manifest.plausible.age_years.high) == (1000, 120)


def test_nested_results_of_these_members_alone_are_current(trained_run: TrainedRun) -> None:
    """The nested protocol states digests of the numbers that the members' folders and the run's options hold."""
    recipe = adapted(SMALL_BATCHES, EPOCHS, IMAGES)
    assert _nested_is_current(trained_run.run, registry.digests(recipe, 0))
    assert not _nested_is_current(trained_run.run, registry.digests(recipe, 1))
    baseline_of_another_seed = {"baseline_sha256": registry.digests(recipe, 1)["baseline_sha256"]}
    assert not _nested_is_current(trained_run.run, registry.digests(recipe, 0) | baseline_of_another_seed)
    for others in (
        dataclasses.replace(recipe, cells=dataclasses.replace(recipe.cells, components=19)),
        dataclasses.replace(recipe, experts=dataclasses.replace(recipe.experts, dropout=0.4)),
        dataclasses.replace(recipe, baseline=dataclasses.replace(recipe.baseline, turns=False)),
    ):
        assert not _nested_is_current(trained_run.run, registry.digests(others, 0))


def test_no_patient_leaves_the_hospital(bundle: Path, trained_run: TrainedRun) -> None:
    rows = [row.split(",") for row in (trained_run.run / "crops/patients.csv").read_text().splitlines()[1:]]
    everything = b"".join(files(bundle).values())
    assert not any(row[0].encode() in everything for row in rows)


def centre(path: Path) -> npt.NDArray[np.uint8]:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    top, left = ((side - 112) // 2 for side in pixels.shape[:2])
    return pixels[top : top + 112, left : left + 112]


def bayes_by_hand(manifest: Manifest, clinical: Floats, classes: Sequence[int]) -> float:
    """Features and Gaussian naive Bayes implemented from the report's text, with scipy's normal density."""
    shares = np.array([classes.count(fused) for fused in range(15)]) / len(classes)
    entropy = -sum(share * np.log(share + 1e-3) for share in shares)
    bayes, (sex, count, age) = scan_section(manifest).naive_bayes, clinical
    base = np.array([sex, max(count, bayes.count_floor), age, *shares, entropy, len(set(classes))])
    features = np.append(base, np.sum(base > np.array(bayes.quantiles)))
    scaled = (features - np.array(bayes.feature_low)) / np.array(bayes.feature_range)
    joint = [
        np.log(prior) + norm.logpdf(scaled, mean, np.sqrt(variance)).sum()
        for prior, mean, variance in zip(bayes.prior, bayes.mean, bayes.variance, strict=True)
    ]
    return float(expit(joint[1] - joint[0]))


def torch_scores(trained: TrainedRun, manifest: Manifest, patient: SyntheticPatient, folder: Path) -> dict[str, float]:
    """A patient's row of predictions.csv, computed directly from the checkpoints."""
    paths = sorted((folder / patient.patient_id).iterdir())
    images = torch.from_numpy(np.stack([centre(path) for path in paths]))
    age = (REFERENCE_DATE - patient.birth_date).days / 365.25
    clinical = torch.tensor([[float(patient.sex == "F"), patient.lymph_count, age]])
    with torch.inference_mode():
        baseline = load_baseline(trained.run / "baseline/full.safetensors")
        single = baseline(images, clinical.expand(len(images), 3)).softmax(1)[:, 1]
        features = load_backbone(MAGNIFICATION)(images)
        shares = load_cells(trained.run / "cells/full.safetensors")(features)[0].double().numpy()
        member = load_imagenet(trained.run / "imagenet/full.safetensors")
        imagenet = member.head(member.pictures(features).mean()[None], clinical).probability
        moe = [one(features.mean(0, keepdim=True), clinical) for one in load_experts(trained.run).each]
    assert len(moe) == 2
    fusion = scan_section(manifest).class_fusion
    classes = [fusion[int(first)] for first in shares.argmax(1)]
    raw = {
        "baseline": float(single.double().mean()),
        "scan": bayes_by_hand(manifest, clinical[0].double().numpy(), classes),
        "moe": sum(one.probability.item() for one in moe) / 2,
        "imagenet": imagenet.item(),
    }
    row, probability = {}, 0.0
    for name in MEMBERS:
        calibration = manifest.ensemble.calibration[name]
        score = logit(np.clip(raw[name], calibration.clip, 1 - calibration.clip))
        row[f"{name}_probability"] = float(expit(calibration.slope * score + calibration.intercept))
        probability += manifest.ensemble.weights[name] * row[f"{name}_probability"]
    members = list(row.values())
    gate = sum(one.gate.item() for one in moe) / 2
    return row | {
        "probability_malignant": probability,
        "moe_image_gate": gate,
        "disagreement": max(members) - min(members),
    }


def test_the_runtime_gives_torchs_numbers(bundle: Path, trained_run: TrainedRun, scored: Scored) -> None:
    manifest = load_bundle(bundle).manifest
    point = manifest.ensemble.operating_points["balanced"]
    assert list(scored.rows) == [patient.patient_id for patient in scored.patients]
    for patient in scored.patients:
        row = scored.rows[patient.patient_id]
        expected = torch_scores(trained_run, manifest, patient, scored.folder)
        found = {name: float(row[name]) for name in expected}
        assert found == pytest.approx(expected, rel=0, abs=1e-5 + 5e-7)
        probability = expected["probability_malignant"]
        decided = "malignant" if probability >= point.refer_high else "reactive"
        assert row["decision"] == ("refer" if point.refer_low <= probability < point.refer_high else decided)


def test_patients_differ(scored: Scored) -> None:
    """Otherwise the comparison with torch would prove little."""
    for name in ("probability_malignant", *(f"{member}_probability" for member in MEMBERS)):
        assert np.ptp([float(row[name]) for row in scored.rows.values()]) > 0.01


def test_int8_ships_with_its_proof_and_goes_when_not_asked_for(
    bundle: Path, trained_run: TrainedRun, scored: Scored, tmp_path: Path
) -> None:
    target = tmp_path / "bundle"
    assert export(trained_run.run, target, "--reduced", scored.folder) == 0
    loaded = load_bundle(target)
    assert set(loaded.graphs) == ALL_GRAPHS == {*GRAPHS, "backbone.int8.onnx"}
    assert {name: data for name, data in loaded.graphs.items() if name in GRAPHS} == load_bundle(bundle).graphs
    proof = loaded.manifest.int8
    assert proof
    assert (proof.patients, proof.changed_decisions) == (8, 0)
    assert 0 < proof.largest_change < 0.01
    assert proof.tolerance == dict.fromkeys(INT8_OUTPUTS, 0.005)
    for name in INT8_OUTPUTS:
        exact = loaded.manifest.self_test.expected[name]
        alone = name == "imagenet_gate" and set(exact) == {1.0}  # the image expert: exactly 1 in any precision
        assert (proof.expected[name] != exact) != alone
    assert set(proof.expected) == set(INT8_OUTPUTS)
    for threads, batch in ((1, 4), (2, 32)):
        engine = Engine(loaded, Device(CPU, "test"), batch, threads)
        engine.run_self_test()
        assert (engine.precision, engine.downgrades) == ("int8", [])
    said = "Of 8 patients scored both ways, 0 got a different decision at any operating point; no probability changed"
    assert (target / "MODEL_CARD.md").read_text().count(said) == 1
    assert export(trained_run.run, target, "--replace") == 0
    assert files(target) == files(bundle)


def test_what_changes_a_result_does_not_ship(
    trained_run: TrainedRun, scored: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.precision.proof.LARGEST_CHANGE", 0.0)
    assert export(trained_run.run, tmp_path / "bundle", "--reduced", scored.folder) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("moe_features", "self-test failed on CPUExecutionProvider in int8: moe_features differs by 0.1"),
        ("baseline", "int8 changes baseline"),  # which has no graph in int8
    ],
)
def test_what_fails_its_own_self_test_does_not_ship(
    trained_run: TrainedRun,
    scored: Scored,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    said: str,
) -> None:
    works = export_module._outputs

    def wrong(manifest: Manifest, graphs: dict[str, bytes], precision: Precision) -> dict[str, list[float]]:
        found = works(manifest, graphs, precision)
        return found | {name: [value + 0.1 for value in found[name]]} if precision == "int8" else found

    monkeypatch.setattr(export_module, "_outputs", wrong)
    monkeypatch.setattr("export.precision.proof.LARGEST_CHANGE", 1.0)
    assert export(trained_run.run, tmp_path / "bundle", "--reduced", scored.folder) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_a_cohort_that_cannot_be_read_is_told_before_anything_is_exported(
    trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("export.pipeline.export_graph", lambda plan: pytest.fail("it began to export"))
    assert export(trained_run.run, tmp_path / "bundle", "--reduced", tmp_path) == 1
    assert "clinical_annotation.csv" in capsys.readouterr().err


def test_short_weights_that_change_a_probability_do_not_ship(
    trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("export.members.baseline.ROUNDING_TOLERANCE", 1e-9)
    assert export(trained_run.run, tmp_path / "bundle") == 1
    assert "float16 weights change a probability" in capsys.readouterr().err


def test_a_folder_that_is_not_empty_is_replaced_only_when_told(
    bundle: Path, trained_run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "bundle"
    shutil.copytree(bundle, old)
    (old / "MODEL_CARD.md").write_text("an older one")
    before = files(old)
    assert export(trained_run.run, old) == 2
    assert "bundle: is not empty" in capsys.readouterr().err
    assert files(old) == before
    assert export(trained_run.run, old, "--replace") == 0
    again = load_bundle(old)
    assert again.bundle_id in capsys.readouterr().out
    assert again.bundle_id == load_bundle(bundle).bundle_id  # the same run gives the same bundle
    assert files(old) == files(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("place", ["run", ".", "notes"])
def test_only_a_bundle_is_ever_replaced(
    trained_run: TrainedRun, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never the run folder, a folder that contains it, or a folder with other files."""
    monkeypatch.setattr("export.pipeline.export_graph", lambda plan: pytest.fail("it began to export"))
    shutil.copytree(trained_run.run, tmp_path / "run")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/manifest.json.bak").write_text("keep me")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="which belongs to no bundle"):
        export_bundle(tmp_path / "run", tmp_path / place, replace=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_export_leaves_everything_as_it_was(
    bundle: Path, trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")

    def differ(*_: object) -> float:
        raise ParityError("graphs differ from their networks: moe_head.onnx")

    monkeypatch.setattr("export.pipeline.check_parity", differ)
    monkeypatch.setattr("export.pipeline.export_graph", lambda plan: b"")
    assert export(trained_run.run, tmp_path / "bundle", "--replace") == 1
    assert files(tmp_path / "bundle") == files(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    "missing",
    [
        "ensemble/inputs.json",
        "ensemble/ensemble.json",
        "cells/full.safetensors",
        "cells/fusion.json",
        "cells/naive_bayes.json",
        "cells/numbers.json",
        "cells/out_of_fold.csv",
        "moe/full.safetensors",
        "moe/numbers.json",
        "moe/out_of_fold.csv",
        "baseline/full.safetensors",
        "imagenet/full.safetensors",
        "imagenet/numbers.json",
        "crops/cohort.json",
    ],
)
def test_an_unfinished_run_is_refused(
    trained_run: TrainedRun, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained_run.run, tmp_path / "run")
    (tmp_path / "run" / missing).unlink()
    monkeypatch.setattr("export.pipeline.export_graph", lambda plan: pytest.fail("it began to export"))
    with pytest.raises(UsageError, match=r"run: has no "):
        export_bundle(tmp_path / "run", tmp_path / "bundle", replace=False)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "changed",
    [
        "cells/full.safetensors",
        "cells/fusion.json",
        "cells/naive_bayes.json",
        "cells/numbers.json",
        "moe/full.safetensors",
        "moe/numbers.json",
        "moe/out_of_fold.csv",
        "imagenet/numbers.json",
    ],
)
def test_members_that_changed_after_the_ensemble_are_refused(
    trained_run: TrainedRun, tmp_path: Path, changed: str
) -> None:
    shutil.copytree(trained_run.run, tmp_path / "run")
    path = tmp_path / "run" / changed
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(UsageError, match=rf"{changed} changed after the ensemble"):
        export_bundle(tmp_path / "run", tmp_path / "bundle", replace=False)


def test_a_run_on_segmented_pictures_is_refused(
    trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime scores whole pictures."""
    shutil.copytree(trained_run.run, tmp_path / "run")
    cohort = tmp_path / "run/crops/cohort.json"
    facts = json.loads(cohort.read_text())
    assert facts["segmented"] == "no"
    cohort.write_text(json.dumps(facts | {"segmented": "yes"}))
    monkeypatch.setattr("export.pipeline.export_graph", lambda plan: pytest.fail("it began to export"))
    with pytest.raises(UsageError, match=r"run: was trained on segmented pictures \(--segment\), which scoring"):
        export_bundle(tmp_path / "run", tmp_path / "bundle", replace=False)
    assert not (tmp_path / "bundle").exists()


def test_naive_bayes_of_other_classes_touches_nothing_that_is_packed(trained_run: TrainedRun, tmp_path: Path) -> None:
    """Such a model would not match the classes of the graph in the same bundle."""
    run, classes = tmp_path / "run", tmp_path / "classes.csv"
    shutil.copytree(trained_run.run, run)
    rows = [row.rpartition(",") for row in (run / "cells/classes.csv").read_text().splitlines()]
    moved = [f"{name},{(int(value) + 1) % 15}" for name, _, value in rows[1:]]
    classes.write_text("\n".join(["".join(rows[0]), *moved]) + "\n")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert train("naive-bayes", trained_run.patients, run, *DATE, *OPTIONS, "--cell-classes", classes).code == 0
    assert (run / "naive_bayes_on_given_classes/full.json").is_file()
    changed = [str(path.relative_to(run)) for path, data in before.items() if path.read_bytes() != data]
    assert set(changed) <= {"calls.jsonl"}  # the record of the call
    assert input_digests(run) == json.loads((run / "ensemble/inputs.json").read_text())
