"""Before and after adapting: whoever the members disagree on is referred in both."""

import numpy as np
import pytest

from export.adapting.figures import effect
from export.adapting.local import Local
from export.adapting.points import CrossFitted
from infer.bundle.manifest import OperatingPoint

LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0])
PROBABILITY = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.1, 0.3, 0.9])
NOBODY = np.zeros(8, np.bool_)
POINTS = {"balanced": OperatingPoint(0.5, 0.5)}


def test_whoever_the_members_disagree_on_is_referred_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.core.performance.RESAMPLES", 50)
    apart = np.array([False, False, False, True, True, False, False, False])
    local = Local(
        labels=LABELS,
        probability=PROBABILITY,
        alone=PROBABILITY,
        held_up=NOBODY,
        disagree=apart,
        measures={},
        sizes=(),
        left_out=0,
        told=True,
        table_sha256="",
        seen="",
        options={},
        precision="float32",
    )
    called = np.where(PROBABILITY[None] >= 0.5, "malignant", "reactive")
    held_up = np.array([False] * 7 + [True])
    found = effect(local, POINTS, POINTS, CrossFitted(PROBABILITY[None], {"balanced": called}), held_up, 0)
    shares = {title: (one.before, one.after) for title, one in found.points["balanced"].items()}
    values = {title: [round(of.value, 6) for of in both if of] for title, both in shares.items()}
    assert values == {
        "malignant called reactive": [0.0, 0.0],  # the one who would be is the one they disagree on
        "reactive called reactive": [0.5, 0.5],
        "referred": [0.25, 0.375],
    }
    assert found.held_up == (0, 1)
