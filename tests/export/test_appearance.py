"""Which classes a bundle describes, and by what medians; against a slow reference."""

import csv
import statistics
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest

from export.appearance import make_appearance
from export.members import registry
from export.reference import make_reference
from infer.bundle.appearance import MEASURED
from tests.train_fixtures import TrainedRun
from train.data.appearance import of_cell
from train.data.bags import load_crops

PICTURES = 400


def drawn_cells(seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Invented measures, classes and patients: 20 patients of 20 pictures."""
    random = np.random.default_rng(seed)
    cells = pd.DataFrame(random.uniform(0.1, 0.9, (PICTURES, len(MEASURED))), columns=list(MEASURED))
    return cells, random.integers(0, 4, PICTURES), np.repeat(np.arange(20), 20)


def test_medians_and_quartiles_are_over_pictures() -> None:
    cells, classes, patients = drawn_cells()
    found = make_appearance(cells, classes, patients)
    assert found is not None
    assert found.classes.keys() == {f"share_{number}" for number in range(4)}
    for number in range(4):
        one = found.classes[f"share_{number}"]
        chosen = [index for index in range(PICTURES) if classes[index] == number]
        assert (one.pictures, one.patients) == (len(chosen), len({int(patients[index]) for index in chosen}))
        for name in MEASURED:
            expected = statistics.median(float(cells[name][index]) for index in chosen)
            assert one.medians[name] == pytest.approx(expected, rel=1e-3)
    for name in MEASURED:
        expected_quartiles = statistics.quantiles(cells[name], n=4, method="inclusive")
        assert found.quartiles[name] == pytest.approx(expected_quartiles, rel=1e-3)


@pytest.mark.parametrize(
    ("pictures_of_patients", "described"),
    [
        ([6, 6, 6, 6, 6], True),
        ([8, 8, 7, 7], False),  # four patients
        ([6, 6, 6, 6, 5], False),  # 29 pictures
        ([19, 5, 5, 5, 5], True),
        ([20, 5, 5, 5, 5], False),  # half of the pictures are one patient's
    ],
)
def test_what_is_too_rare_is_not_described(pictures_of_patients: list[int], described: bool) -> None:
    cells, classes, patients = drawn_cells()
    classes = np.zeros_like(classes)
    for patient, number in enumerate(pictures_of_patients):
        classes[20 * patient : 20 * patient + number] = 7
    found = make_appearance(cells, classes, patients)
    assert found is not None
    assert ("share_7" in found.classes) == described
    assert "share_0" in found.classes


def test_no_number_is_a_pictures_own() -> None:
    cells, classes, patients = drawn_cells()
    found = make_appearance(cells, classes, patients)
    assert found is not None
    said = {value for one in found.classes.values() for value in one.medians.values()}
    assert not said & set(cells.to_numpy().ravel().tolist())


def test_pictures_without_a_cell_are_left_out() -> None:
    cells, classes, patients = drawn_cells()
    without = make_appearance(cells[50:].reset_index(drop=True), classes[50:], patients[50:])
    gone = cells.copy()
    gone.iloc[:50] = np.nan
    assert make_appearance(gone, classes, patients) == without
    gone.iloc[:] = np.nan
    assert make_appearance(gone, classes, patients) is None


def test_the_order_of_the_pictures_does_not_matter() -> None:
    cells, classes, patients = drawn_cells()
    order = np.random.default_rng(1).permutation(PICTURES)
    again = make_appearance(cells.iloc[order].reset_index(drop=True), classes[order], patients[order])
    assert again == make_appearance(cells, classes, patients)


def test_a_run_is_described_by_its_own_classes_and_pictures(trained_run: TrainedRun) -> None:
    bags = load_crops(trained_run.run)
    reference = make_reference(trained_run.run, bags, [kind.load(trained_run.run) for kind in registry.MEMBERS])
    with (trained_run.run / "cells/classes.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sizes: dict[str, list[float]] = defaultdict(list)
    for row, crop in zip(rows, bags.crops.numpy(), strict=True):
        if found := of_cell(crop):
            sizes[f"share_{row['cell_class']}"].append(found["cell_size"])
    assert reference.appearance is not None
    assert reference.appearance.classes
    for name, one in reference.appearance.classes.items():
        assert one.pictures == len(sizes[name])
        assert one.medians["cell_size"] == pytest.approx(statistics.median(sizes[name]), rel=1e-3)
    without = [kind.load(trained_run.run) for kind in registry.MEMBERS if kind.name != "scan"]
    assert make_reference(trained_run.run, bags, without).appearance is None
