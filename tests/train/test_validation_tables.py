"""A validation's further tables: predictive values at other prevalences, who the patients are, TRIPOD+AI."""

import dataclasses

import numpy as np
import pytest

from infer.bundle.load import REFERENCE, load_bundle
from infer.bundle.manifest import OperatingPoint
from tests.infer.manifests import make_manifest
from tests.train.validated import drawn
from train.evaluation.validation.cohort import characteristics, flow
from train.evaluation.validation.points import decided
from train.evaluation.validation.scored import NotScored
from train.evaluation.validation.tripod import ITEMS

POINTS = {"balanced": OperatingPoint(0.4, 0.6)}
ONCE = np.ones((1, 200))


def found(patients_at: float) -> dict[str, float]:
    table = decided(drawn(), POINTS, ONCE, (patients_at,))
    return dict(zip(table["figure"], table["value"], strict=True))


def test_predictive_values_where_fewer_are_malignant() -> None:
    """By counting a cohort of 100,000 in which 10% are malignant."""
    of = found(0.1)
    true, false = 10_000 * of["malignant called malignant"], 90_000 * of["reactive called malignant"]
    assert of["called malignant who are, where 10% are malignant"] == pytest.approx(true / (true + false))
    right, missed = 90_000 * of["reactive called reactive"], 10_000 * of["malignant called reactive"]
    assert of["called reactive who are, where 10% are malignant"] == pytest.approx(right / (right + missed))
    assert of["called malignant who are, where 10% are malignant"] < of["called malignant who are"]


def test_at_the_share_here_they_are_those_here() -> None:
    here = float(drawn().labels.mean())
    of = found(here)
    for who in ("malignant", "reactive"):
        stated = of[f"called {who} who are, where {100 * here:.3g}% are malignant"]
        assert stated == pytest.approx(of[f"called {who} who are"])


def test_whoever_the_members_disagree_on_is_referred() -> None:
    scored = drawn()
    apart = np.arange(200) % 4 == 0
    decided_all = decided(dataclasses.replace(scored, disagree=apart), POINTS, ONCE)
    of = dict(zip(decided_all["figure"], decided_all["value"], strict=True))
    sure = (scored.probability >= 0.6) | (scored.probability < 0.4)
    assert of["referred"] == pytest.approx(np.mean(apart | ~sure))
    ill = scored.labels == 1
    found_ill = ill & ~apart & (scored.probability >= 0.6)
    assert of["malignant called malignant"] == pytest.approx(found_ill.sum() / ill.sum())


def test_nobody_is_lost_between_the_table_and_the_figures() -> None:
    lost = (NotScored("A", 1, "refused", "count_missing"), NotScored("B", 0, "failed", "still_changing"))
    scored = dataclasses.replace(drawn(), not_scored=lost, without_label=7)
    numbers = [cell for _, cell in flow(scored)]
    malignant = int(scored.labels.sum())
    assert numbers == ["209", "7", "202", "2 (1 malignant)", f"200 ({malignant} malignant)"]


def test_characteristics_by_hand() -> None:
    scored = drawn()
    table = {row[0]: row[1:] for row in characteristics(scored, load_bundle(REFERENCE).manifest)}
    ill = scored.labels == 1
    sex, count, age = scored.clinical.T
    assert table["Patients"] == [str((~ill).sum()), str(ill.sum()), "200", "130"]
    assert table["Malignant"] == ["0%", "100%", f"{ill.mean():.0%}", "69%"]
    assert table["Women"][:3] == [f"{sex[some].mean():.0%}" for some in (~ill, ill, ill | ~ill)]
    assert table["Age in years"][1].startswith(f"{np.median(age[ill]):.0f} ({age[ill].min():.0f} to ")
    assert table["Lymphocytes in 10^9/L"][0].startswith(f"{np.median(count[~ill]):.1f} (")
    assert all(len(row) == 4 for row in table.values())


def test_a_bundle_that_does_not_tell_its_patients() -> None:
    table = {row[0]: row[1:] for row in characteristics(drawn(), make_manifest())}
    assert [table[row][3] for row in ("Women", "Age in years")] == ["not told", "not told"]


def test_every_item_of_tripod_is_named_once() -> None:
    assert [int(number) for number, *_ in ITEMS] == list(range(1, 28))
    assert all(what and where for _, what, where in ITEMS)
