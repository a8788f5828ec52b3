"""What the manifest says of the training patients, against a slow reference on the same run."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from export.members import registry
from export.reference import fit_clinical, make_reference
from export.usual import JUDGED
from infer.bundle.reference import LEVELS, Reference
from infer.pictures.measure import measured
from tests.train_fixtures import TrainedRun
from train.data.bags import Bags, load_crops
from train.data.seen import digest, unpacked


@pytest.fixture(scope="module")
def bags(trained_run: TrainedRun) -> Bags:
    return load_crops(trained_run.run)


@pytest.fixture(scope="module")
def reference(trained_run: TrainedRun, bags: Bags) -> Reference:
    return make_reference(trained_run.run, bags, [kind.load(trained_run.run) for kind in registry.MEMBERS])


def of_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def quantile(values: list[float], share: float) -> float:
    """Linear interpolation between order statistics, written out."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def test_measures_are_quantiles_over_patients(trained_run: TrainedRun, bags: Bags, reference: Reference) -> None:
    classes: dict[str, list[int]] = {}
    for row in of_rows(trained_run.run / "cells/classes.csv"):
        classes.setdefault(row["patient_id"], []).append(int(row["cell_class"]))
    probabilities = {
        row["patient_id"]: float(row["probability"]) for row in of_rows(trained_run.run / "ensemble/out_of_fold.csv")
    }
    found = {
        "lymph_count": [float(count) for count in bags.clinical[:, 1]],
        "sex": [float(sex) for sex in bags.clinical[:, 0]],
        "pictures": [float(len(classes[one])) for one in bags.patient_ids],
        "share_1": [classes[one].count(1) / len(classes[one]) for one in bags.patient_ids],
        "probability": [probabilities[one] for one in bags.patient_ids],
        "blue": [float(np.mean(bags.pictures(index).numpy()[..., 2])) for index in range(len(bags))],
    }
    assert reference.patients == len(bags)
    for name, values in found.items():
        expected = [quantile(values, share) for share in LEVELS]
        assert reference.measures[name] == pytest.approx(expected, rel=1e-5, abs=1e-9), name


def test_spreads_are_those_of_a_label(trained_run: TrainedRun, bags: Bags, reference: Reference) -> None:
    assert set(reference.by_label) == {"reactive", "malignant"}
    shares = registry.MEMBERS[1].load(trained_run.run).measures(trained_run.run, bags)["share_2"]
    for label, name in enumerate(("reactive", "malignant")):
        values = [float(share) for share, of in zip(shares, bags.labels, strict=True) if of == label]
        spread = reference.by_label[name]["share_2"]
        expected = [quantile(values, share) for share in (0.1, 0.5, 0.9)]
        assert [spread.low, spread.median, spread.high] == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert reference.by_label["reactive"] != reference.by_label["malignant"]


def test_sex_age_and_count_alone_are_the_evaluations_clinical_logistic(bags: Bags) -> None:
    """Fitted on other units of the same values: standardising makes them the same model."""
    sex, count, age = bags.clinical.astype(np.float64).T
    values = np.stack([sex, np.log(count), age], axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(values, bags.labels)
    alone = fit_clinical(bags)
    for row, expected in zip(zip(sex, count, age, strict=True), model.predict_proba(values)[:, 1], strict=True):
        assert alone.probability(*row) == pytest.approx(expected, abs=1e-6)


def test_the_training_pictures_are_known_again_by_their_digests(bags: Bags, reference: Reference) -> None:
    digests = unpacked(reference.seen)
    crops = bags.crops.numpy()
    assert len(digests) == len(np.unique(crops.reshape(len(crops), -1), axis=0))
    assert all(digest(crop, bags.facts["table_sha256"]) in digests for crop in crops)


def test_each_measure_of_pictures_is_the_mean_over_the_patients_pictures(bags: Bags, reference: Reference) -> None:
    found = [
        np.mean([measured(crop)["sharpness"] for crop in bags.pictures(index).numpy()]) for index in range(len(bags))
    ]
    expected = [quantile([float(value) for value in found], share) for share in LEVELS]
    assert reference.measures["sharpness"] == pytest.approx(expected, rel=1e-5)
    assert reference.measures["jpeg_quality"] == [90.0] * 50  # as the drawn pictures are saved


def test_what_is_judged_lies_within_what_training_patients_have(bags: Bags, reference: Reference) -> None:
    usual = reference.usual
    assert len(usual.scores) == len(bags)
    assert usual.spans.keys() == {*JUDGED}
    assert usual.ranges["age_years"].low < bags.clinical[:, 2].min()
    assert usual.ranges["lymph_count"].high > bags.clinical[:, 1].max()
