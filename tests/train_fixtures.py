"""A complete training on a synthetic cohort, run once per test session for all tests that need one.

tests/train and tests/export import the fixture; tests/conftest.py must not, because tests/infer runs without torch.
"""

import contextlib
import io
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from tests.synthetic import REFERENCE_DATE, SyntheticPatient, make_patients, write_cohort
from train.cli import commands as cli
from train.core.files import locked
from train.members.recipes import RECIPES, SMALL, Recipe

COHORT_SEED = 11
PATIENTS, EPOCHS, IMAGES = 60, 3, 2
OPTIONS = ("--recipe", "small", "--epochs", str(EPOCHS), "--images-per-patient", str(IMAGES))
# The mixture with an encoder of its own; these are not shortened by --epochs.
SHORT = replace(SMALL.moe, late_steps=50, norm_images=64)
# With so few pictures batches of 256 would give one step per epoch, and so few steps rarely fill 20 classes; the
# baseline's batches of 128 would give two. Two mixtures test averaging as well as three.
SMALL_BATCHES = replace(
    SMALL,
    baseline=replace(SMALL.baseline, batch_images=8),
    moe=SHORT,
    scan=replace(SMALL.scan, batch_images=32, least_classes=2, largest_class=1.0),
    cells=replace(SMALL.cells, components=20, batch_images=32, neighbours=5, heads=2),
    experts=replace(SMALL.experts, fit=replace(SMALL.experts.fit, epochs=12), late_steps=50, seeds=2),
)
DATE = ("--reference-date", REFERENCE_DATE.isoformat())


@dataclass(frozen=True)
class TrainedRun:
    """A finished `python -m train all`."""

    patients: Path
    run: Path


@dataclass(frozen=True)
class Call:
    """Exit code and output of a call of `python -m train`."""

    code: int
    output: str
    errors: str


def train(*arguments: object, small: Recipe = SMALL_BATCHES) -> Call:
    """Run `python -m train` in this process."""
    output, errors, code = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", ["train", *map(str, arguments)]),
        patch.dict(RECIPES, small=small),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
    return Call(code, output.getvalue(), errors.getvalue())


def clear_cut(patient: SyntheticPatient, seed: int) -> SyntheticPatient:
    """The same patient with 17 of 20 cells of the label's two kinds, so that a few epochs are enough."""
    rng = np.random.default_rng([seed, int(patient.patient_id[1:])])
    typical = (2, 3) if patient.label else (0, 1)
    others = (0, 1) if patient.label else (2, 3)
    kinds = [int(rng.choice(typical if rng.random() < 0.85 else others)) for _ in patient.kinds]
    return replace(patient, kinds=tuple(kinds))


def train_all(folder: Path) -> TrainedRun:
    """Train everything in a folder, once for all test processes."""
    folder.mkdir(exist_ok=True)
    trained = TrainedRun(folder / "patients", folder / "run")
    with locked(folder / "lock"):
        if not (folder / "done").exists():
            _train_all(trained)
            (folder / "done").touch()
    return trained


def with_features(trained: TrainedRun, run: Path) -> Path:
    """A new run folder of the same pictures, with what the backbone saw in them: it takes longest of all."""
    run.mkdir()
    for path in trained.run.glob("features-*.npy"):
        shutil.copy(path, run)
    return run


def _train_all(trained: TrainedRun) -> None:
    patients = [clear_cut(patient, COHORT_SEED) for patient in make_patients(PATIENTS, COHORT_SEED, images=(5, 6))]
    write_cohort(trained.patients, patients, seed=COHORT_SEED)
    call = train("all", trained.patients, trained.run, *DATE, *OPTIONS)
    if call.code:
        pytest.fail(f"python -m train all: exit code {call.code}\n{call.errors}")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """The finished run. Read-only: a test that changes it must use a copy."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return train_all(shared / "trained")
