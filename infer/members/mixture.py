"""The mixture of experts: an image expert on the mean of a patient's features, a clinical expert, and a gate."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from infer.members import gated
from infer.members.backbone import BACKBONE, FEATURES, STAND_INS, form
from infer.members.member import CLINICAL, Floats, GraphForm, Mean, Member, Opinion, RunGraph

HEAD = "moe_head.onnx"


class Mixture(Member[Mean]):
    """Several mixtures of experts, averaged (Sahasrabudhe et al. 2021; Collin & Le Chenadec, section 2.3)."""

    name = "moe"
    title = "mixture of experts"
    place_of_columns = "middle"
    stand_ins = STAND_INS
    reduced_outputs = dict.fromkeys(STAND_INS, ("moe", "moe_features", "moe_image", "moe_gate"))
    unbounded_outputs = {"moe_features": 1.0}
    patient_columns = (gated.gate_column(name),)

    @property
    def graphs(self) -> dict[str, GraphForm]:
        """The backbone takes pictures, the head patients."""
        return {
            BACKBONE: form(self.pictures),
            HEAD: GraphForm({"features": FEATURES, "clinical": CLINICAL}, gated.OUTPUTS),
        }

    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        """`features`: (N, 1280)."""
        return run(BACKBONE, images=pictures)

    def begin(self) -> Mean:
        return Mean()

    def add(self, sums: Mean, seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        sums.add(seen["features"][row])
        return {}

    def conclude(self, sums: Mean, run: RunGraph, clinical: Floats) -> Opinion:
        def head(means: Floats) -> dict[str, Floats]:
            same = np.tile(clinical.astype(np.float32), (len(means), 1))
            return run(HEAD, features=means.astype(np.float32), clinical=same)

        found = {name: float(of[0]) for name, of in head(sums.value[None]).items()}
        without = sums.without_each()
        return Opinion(
            found["probability"],
            tuple(head(without)["probability"].tolist()) if len(without) else (),
            gated.further(self.name, found),
        )

    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        return {
            "moe": np.array([opinion.probability for opinion in opinions]),
            # The image experts may saturate on every generated picture; this reveals a wrong backbone even then.
            "moe_features": seen["features"].mean(axis=1),
            **gated.tested(self.name, opinions),
        }
