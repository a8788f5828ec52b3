"""`train all` and export end with a bundle on every small cohort: drawn ones with a flaw each, and real ones."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.pipeline import export_bundle
from infer.bundle.load import load_bundle
from tests.synthetic import SyntheticPatient, make_patients, write_cohort
from tests.train_fixtures import DATE, train
from train.core.fitting import FitRecipe
from train.members.recipes import SMALL

LYON = os.environ.get("LYMPHO_LYON", "")
TABLE = "clinical_annotation.csv"
# Trained as `small` is, but for seconds.
TINY = replace(
    SMALL,
    baseline=replace(SMALL.baseline, batch_images=32),
    experts=replace(SMALL.experts, fit=FitRecipe(epochs=6, learning_rate=1e-3), late_steps=20, seeds=1),
)
QUICK = ("--recipe", "small", "--epochs", "2", "--images-per-patient", "2")


@dataclass(frozen=True)
class Drawn:
    """A drawn cohort and what is wrong with it."""

    patients: int
    malignant: float
    images: tuple[int, int]
    members: int = 4  # of the bundle
    change: Callable[[SyntheticPatient], SyntheticPatient] = lambda patient: patient
    spoil: Callable[[Path], None] = lambda folder: None


def blank_pictures(folder: Path) -> None:
    for path in folder.glob("*/*.jpg"):
        Image.new("RGB", (112, 112), "white").save(path)


def same_cells(folder: Path) -> None:
    """Every patient has the first one's cells, moved in the picture: copies in place are refused beforehand."""
    first, *others = sorted(path for path in folder.iterdir() if path.is_dir())
    for patient, path in enumerate(others, 1):
        for picture in path.iterdir():
            pixels = np.roll(np.asarray(Image.open(first / picture.name)), (3 * patient, -2 * patient), (0, 1))
            Image.fromarray(pixels).save(picture)


COHORTS = {
    "5 of 20 are reactive, 10 pictures each": Drawn(20, 0.75, (10, 10)),
    "blank pictures": Drawn(20, 0.5, (10, 10), members=3, spoil=blank_pictures),
    "5 of 20 are malignant": Drawn(20, 0.25, (10, 16)),
    "2 or 3 pictures a patient": Drawn(20, 0.5, (2, 3)),
    "all men": Drawn(22, 0.5, (10, 12), change=lambda one: replace(one, sex="M")),
    "sex gives the label away": Drawn(24, 0.5, (10, 12), change=lambda one: replace(one, sex="MF"[one.label])),
    "one count for all": Drawn(20, 0.6, (10, 12), change=lambda one: replace(one, lymph_count=5.5)),
    "the same cells in all patients": Drawn(20, 0.5, (10, 10), spoil=same_cells),
    "one kind of cell": Drawn(20, 0.5, (10, 12), change=lambda one: replace(one, kinds=(0,) * len(one.kinds))),
    "6 of 40 are reactive, 10 to 40 pictures": Drawn(40, 0.85, (10, 40)),
}
FAST = 2  # of them; the others are run by `make test-slow`


def bundle_of(patients: Path, folder: Path, *options: object, members: int = 4) -> Path:
    """The bundle of `train all` and export; both must end well."""
    call = train("all", patients, folder / "run", *options, small=TINY)
    assert call.code == 0, call.errors
    export_bundle(folder / "run", folder / "bundle", replace=False)
    manifest = load_bundle(folder / "bundle").manifest
    assert len(manifest.members) == members
    weights = np.array(list(manifest.ensemble.weights.values()))
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)
    with (folder / "run/ensemble/out_of_fold.csv").open(newline="") as file:
        probabilities = np.array([float(row["probability"]) for row in csv.DictReader(file)])
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    metrics = json.loads((folder / "run/ensemble/metrics.json").read_text())["ensemble"]
    assert 0 <= metrics["auc_low"] <= metrics["auc"] <= metrics["auc_high"] <= 1
    return folder / "bundle"


@pytest.mark.parametrize(
    ("seed", "cohort"),
    [
        pytest.param(seed, cohort, id=name, marks=[] if seed < FAST else pytest.mark.slow)
        for seed, (name, cohort) in enumerate(COHORTS.items())
    ],
)
def test_a_drawn_cohort_ends_with_a_bundle(seed: int, cohort: Drawn, tmp_path: Path) -> None:
    patients = make_patients(cohort.patients, seed, cohort.images, cohort.malignant)
    write_cohort(tmp_path / "patients", [cohort.change(one) for one in patients], seed=seed, size=112)
    cohort.spoil(tmp_path / "patients")
    bundle = bundle_of(tmp_path / "patients", tmp_path, *DATE, *QUICK, "--seed", seed, members=cohort.members)
    card = " ".join((bundle / "MODEL_CARD.md").read_text().split())
    assert ("The member scan is left out" in card) == (cohort.members < 4)
    assert "**Trained on few patients:**" in card


@pytest.mark.slow
@pytest.mark.skipif(not LYON, reason="LYMPHO_LYON names no folder with the real trainset/")
@pytest.mark.parametrize(
    ("malignant", "reactive", "seed"), [(15, 5, 0), (5, 15, 1), (22, 10, 2), (28, 12, 3), (20, 20, 4)]
)
def test_some_real_patients_end_with_a_bundle(malignant: int, reactive: int, seed: int, tmp_path: Path) -> None:
    source = Path(LYON) / "trainset"
    with (source / TABLE).open(newline="") as file:
        head, *rows = csv.reader(file)
    rng, label, name = np.random.default_rng(seed), head.index("LABEL"), head.index("ID")
    chosen: list[int] = []
    for wanted, number in (("1", malignant), ("0", reactive)):
        chosen += rng.permutation([place for place, row in enumerate(rows) if row[label] == wanted])[:number].tolist()
    (tmp_path / "patients").mkdir()
    with (tmp_path / "patients" / TABLE).open("w", newline="") as file:
        csv.writer(file).writerows([head, *(rows[place] for place in sorted(chosen))])
    for place in chosen:
        shutil.copytree(source / rows[place][name], tmp_path / "patients" / rows[place][name])
    options = ("--reference-date", "2019-07-01", "--picture-size", "224", "224", "--seed", seed)
    bundle_of(tmp_path / "patients", tmp_path, *options, *QUICK)
