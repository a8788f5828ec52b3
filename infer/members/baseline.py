"""The baseline: a CNN on single pictures and clinical values; a patient gets the mean over its pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from infer.column import Column
from infer.members.member import CLINICAL, Floats, GraphForm, Mean, Member, Opinion, RunGraph

GRAPH = "baseline.onnx"


class Baseline(Member[Mean]):
    """The report's CNN (Collin & Le Chenadec, section 2.1)."""

    name = "baseline"
    title = "baseline"
    place_of_columns = "middle"
    picture_columns = (
        Column(
            "baseline_probability",
            "Probability of malignancy from the baseline for this picture, not calibrated",
            "",
            ".6f",
        ),
    )

    @property
    def graphs(self) -> dict[str, GraphForm]:
        """One graph, with one probability per picture."""
        return {GRAPH: GraphForm({"images": self.pictures, "clinical": CLINICAL}, ("probability",))}

    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        """`probability`: (N,)."""
        return run(GRAPH, images=pictures, clinical=clinical.astype(np.float32))

    def begin(self) -> Mean:
        return Mean()

    def add(self, sums: Mean, seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        probability = float(seen["probability"][row])
        sums.add(probability)
        return {"baseline_probability": probability}

    def conclude(self, sums: Mean, run: RunGraph, clinical: Floats) -> Opinion:
        return Opinion(sums.value, tuple(sums.without_each().tolist()))

    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        return {"baseline": seen["probability"]}
