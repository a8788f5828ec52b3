"""Export says what a training is worth, and refuses one that is worth nothing beside sex, age and count."""

import logging
import shutil
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from export import __main__ as export
from export.weak import worth
from infer.bundle.load import load_bundle
from infer.bundle.manifest import decode, encode
from tests.infer.manifests import make_manifest
from tests.infer.runs import TINY, score, tiny_manifest, write_bundle
from tests.synthetic import make_patients, write_cohort
from tests.train_fixtures import TrainedRun

WHY = "Out of fold it ranks no better than sex, age and count alone"


@pytest.fixture
def weak(trained_run: TrainedRun, tmp_path: Path) -> Path:
    """A run whose ensemble says nothing: everybody has the same probability but for chance."""
    run = tmp_path / "run"
    shutil.copytree(trained_run.run, run)
    table = pd.read_csv(run / "ensemble/out_of_fold.csv", dtype={"patient_id": str})
    table["probability"] = [0.5 + 0.001 * (place % 7) for place in range(len(table))]
    table.to_csv(run / "ensemble/out_of_fold.csv", index=False)
    return run


def run_export(*arguments: object) -> int:
    try:
        export.main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_a_weak_ensemble_is_refused(weak: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_export(weak, tmp_path / "bundle") == 2
    error = capsys.readouterr().err
    assert WHY in error
    assert "--accept-weak" in error
    assert not (tmp_path / "bundle").exists()


def test_accepted_it_says_so(weak: Path, tmp_path: Path) -> None:
    assert run_export(weak, tmp_path / "bundle", "--accept-weak") == 0
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.provenance.weak.startswith(WHY)
    assert manifest.provenance.weak == worth(weak).weak
    card = " ".join((tmp_path / "bundle/MODEL_CARD.md").read_text().split())
    assert f"**Exported although it is weak.** {manifest.provenance.weak}." in card


def test_a_good_one_is_not_called_weak(
    trained_run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = worth(trained_run.run)
    assert found.weak == ""
    assert run_export(trained_run.run, tmp_path / "bundle") == 0
    said = capsys.readouterr().err
    assert all(f"warning: {one}" in said for one in found.warnings)
    assert any("Few patients" in one for one in found.warnings)
    assert load_bundle(tmp_path / "bundle").manifest.provenance.weak == ""


def test_every_run_with_it_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = tiny_manifest()
    manifest["provenance"]["weak"] = WHY
    bundle = write_bundle(tmp_path / "bundle", manifest)
    write_cohort(tmp_path / "patients", make_patients(1, seed=1, images=(10, 10)), seed=1, labels=False, size=112)
    with caplog.at_level(logging.WARNING):
        record = score(tmp_path / "patients", tmp_path / "out", bundle=bundle).record
    assert record["bundle"]["weak"] == WHY
    assert f"this bundle was exported although it is weak: {WHY}" in caplog.messages
    assert score(tmp_path / "patients", tmp_path / "other", bundle=TINY).record["bundle"]["weak"] is None


def test_a_manifest_keeps_it() -> None:
    manifest = make_manifest()
    marked = msgspec.structs.replace(manifest, provenance=msgspec.structs.replace(manifest.provenance, weak=WHY))
    assert decode(encode(marked), "manifest.json").provenance.weak == WHY
    assert b"weak" not in encode(manifest)
