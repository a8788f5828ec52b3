"""The shipped bundle, scored independently in torch, patient by patient, without infer's pipeline."""

import csv
import datetime as dt
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import expit, logit
from sklearn.naive_bayes import GaussianNB

from export.precision.proof import check
from infer.bundle.load import REFERENCE, Bundle, load_bundle
from infer.cohort.patient import Patient
from infer.cohort.patients import read_cohort
from infer.options import Options
from infer.pictures.measure import has_cell, measured
from infer.run import run
from tests.bundles import scan_section
from tests.export.from_graphs import Rebuilt, rebuild
from tests.float32 import in_float32
from tests.synthetic import REFERENCE_DATE, make_patients, write_cohort

REAL = os.environ.get("LYMPHO_REAL_PATIENTS")
TOLERANCE = 1e-5 + 5e-7  # the second term is the rounding to six printed digits


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    write_cohort(tmp_path / "patients", make_patients(5, seed=11, images=(12, 40)), seed=11, labels=False)
    return tmp_path / "patients"


@pytest.fixture
def float32(tmp_path: Path) -> Bundle:
    """The rebuilt torch networks compute in float32, so int8 cannot be compared."""
    return in_float32(load_bundle(REFERENCE), tmp_path / "float32")


def test_drawn_patients_agree_with_torch(float32: Bundle, drawn: Path, tmp_path: Path) -> None:
    compare(float32, drawn, tmp_path / "out", patients=5)


@pytest.mark.skipif(REAL is None, reason="LYMPHO_REAL_PATIENTS names no folder of real patients")
def test_real_patients_agree_with_torch(float32: Bundle, tmp_path: Path) -> None:
    compare(float32, Path(str(REAL)), tmp_path / "out", patients=24)


@pytest.mark.skipif(REAL is None, reason="LYMPHO_REAL_PATIENTS names no folder of real patients")
def test_real_patients_keep_their_decisions() -> None:
    """The check recorded in the manifest, repeated on this machine."""
    bundle = load_bundle(REFERENCE)
    stated = bundle.manifest.int8
    assert stated is not None
    cohort = read_cohort(Path(str(REAL)), bundle.manifest.plausible, reference_date=REFERENCE_DATE)
    found = check(bundle, cohort, "int8")
    assert (found.patients, found.decisions) == (stated.patients, stated.changed_decisions) == (24, 0)
    assert found.probability == pytest.approx(stated.largest_change, abs=1e-4)


def test_the_card_that_ships_says_what_we_say_of_it() -> None:
    """Otherwise it was exported before the text was changed."""
    assert Path("export/about_reference.md").read_text().strip() in (REFERENCE / "MODEL_CARD.md").read_text()


def compare(bundle: Bundle, folder: Path, out: Path, patients: int) -> None:
    assert run(Options(folder, out, bundle=bundle.folder, device="cpu", reference_date=REFERENCE_DATE)) == 0
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = scores_in_torch(folder, bundle, REFERENCE_DATE)
    assert [row["patient_id"] for row in rows] == list(expected)
    assert len(rows) == patients
    for row in rows:
        found = {name: float(row[name]) for name in expected[row["patient_id"]]}
        assert found == pytest.approx(expected[row["patient_id"]], abs=TOLERANCE), row["patient_id"]


def scores_in_torch(folder: Path, bundle: Bundle, date: dt.date) -> dict[str, dict[str, float]]:
    """Columns of predictions.csv by patient, computed one patient at a time."""
    cohort = read_cohort(folder, bundle.manifest.plausible, reference_date=date)
    networks = rebuild(bundle)
    return {patient.patient_id: _score(patient, folder, bundle, networks) for patient in cohort.patients}


@torch.no_grad()
def _score(patient: Patient, folder: Path, bundle: Bundle, networks: Rebuilt) -> dict[str, float]:
    manifest = bundle.manifest
    fusion = scan_section(manifest).class_fusion
    assert patient.clinical
    files = sorted((folder / patient.patient_id).glob("*.jpg"))
    images = torch.from_numpy(np.stack([crop for crop in map(_crop, files) if has_cell(measured(crop))]))
    clinical = torch.tensor(
        [[float(patient.clinical.female), patient.clinical.lymph_count, patient.clinical.age_years]]
    )
    per_image = networks.baseline(images, clinical.expand(len(images), 3)).softmax(1)[:, 1]
    features = networks.backbone(images)
    classes = [fusion[first] for first in networks.cells(features)[0].argmax(1).tolist()]
    mixture = networks.experts(features.mean(0, keepdim=True), clinical)
    contribution = networks.imagenet.pictures(features).mean()[None]
    imagenet = networks.imagenet.head(contribution, clinical)
    raw = {
        "baseline": float(per_image.mean()),
        "scan": _naive_bayes(classes, clinical[0].tolist(), bundle),
        "moe": float(mixture.probability),
        "imagenet": float(imagenet.probability),
    }
    ensemble = manifest.ensemble
    members = {}
    for name, value in raw.items():
        map_ = ensemble.calibration[name]
        members[name] = float(expit(map_.slope * logit(np.clip(value, map_.clip, 1 - map_.clip)) + map_.intercept))
    return {
        "probability_malignant": sum(ensemble.weights[name] * members[name] for name in members),
        **{f"{name}_probability": value for name, value in members.items()},
        "moe_image_gate": float(mixture.gate),
        "imagenet_image_gate": float(imagenet.gate),
    }


def _crop(path: Path) -> np.ndarray:
    """The central 112 x 112 pixels, cropped with Pillow."""
    with Image.open(path) as image:
        left, top = (image.width - 112) // 2, (image.height - 112) // 2
        return np.array(image.convert("RGB").crop((left, top, left + 112, top + 112)))


def _naive_bayes(classes: list[int], clinical: list[float], bundle: Bundle) -> float:
    """The 21 features computed step by step, then scikit-learn's predict_proba."""
    section = scan_section(bundle.manifest)
    numbers = section.naive_bayes
    shares = [classes.count(c) / len(classes) for c in range(max(section.class_fusion) + 1)]
    entropy = -sum(share * np.log(share + 1e-3) for share in shares)
    sex, count, age = clinical
    base = [sex, max(count, numbers.count_floor), age, *shares, entropy, len(set(classes))]
    outliers = sum(value > limit for value, limit in zip(base, numbers.quantiles, strict=True))
    scaled = (np.array([*base, outliers]) - numbers.feature_low) / numbers.feature_range
    model = GaussianNB()
    model.classes_ = np.array([0, 1])
    model.class_prior_ = np.array(numbers.prior)
    model.theta_, model.var_ = np.array(numbers.mean), np.array(numbers.variance)
    return float(model.predict_proba(scaled[None])[0, 1])
