"""The ImageNet member: regression on features of a network trained on photographs, gated with clinical naive Bayes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from infer.column import Column
from infer.members import gated
from infer.members.backbone import BACKBONE, FEATURES, STAND_INS, form
from infer.members.member import CLINICAL, ONE_NUMBER, Floats, GraphForm, Mean, Member, Opinion, RunGraph

PICTURES, HEAD, DISTANCE = "imagenet_pictures.onnx", "imagenet_head.onnx", "imagenet_distance.onnx"
WITHIN, OUTSIDE = "features_within", "features_outside"  # measures


@dataclass
class Sums:
    """Over a patient's pictures."""

    contribution: Mean = field(default_factory=Mean)
    features: Floats = field(default_factory=lambda: np.zeros(FEATURES[1]))  # their sum


class ImageNet(Member[Sums]):
    """On the backbone's features. A patient's logit uses the mean contribution of its pictures.

    It measures how far the patient's mean features lie from those of the patients that it was fitted on.
    """

    name = "imagenet"
    title = "ImageNet member"
    place_of_columns = "behind bundle"
    stand_ins = STAND_INS
    reduced_outputs = dict.fromkeys(
        STAND_INS,
        ("imagenet_contribution", "imagenet", "imagenet_image", "imagenet_gate", "imagenet_distance"),
    )
    unbounded_outputs = {"imagenet_contribution": 1.0, "imagenet_distance": 1.0}
    picture_columns = (
        Column(
            "imagenet_contribution",
            "Contribution of this picture to the logit of the image expert",
            "",
            ".6f",
        ),
    )
    columns_at_end = (gated.gate_column(name),)

    @property
    def graphs(self) -> dict[str, GraphForm]:
        """The backbone takes pictures, the second their features, the others patients."""
        return {
            BACKBONE: form(self.pictures),
            PICTURES: GraphForm({"features": FEATURES}, ("contribution",)),
            HEAD: GraphForm({"contribution": ONE_NUMBER, "clinical": CLINICAL}, gated.OUTPUTS),
            DISTANCE: GraphForm({"features": FEATURES}, ("within", "outside")),
        }

    @property
    def measure_names(self) -> tuple[str, ...]:
        return WITHIN, OUTSIDE

    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        """`contribution`: (N,); `features`: (N, 1280)."""
        features = run(BACKBONE, images=pictures)["features"]
        return {"features": features, **run(PICTURES, features=features)}

    def begin(self) -> Sums:
        return Sums()

    def add(self, sums: Sums, seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        contribution = float(seen["contribution"][row])
        sums.contribution.add(contribution)
        sums.features += seen["features"][row]
        return {"imagenet_contribution": contribution}

    def conclude(self, sums: Sums, run: RunGraph, clinical: Floats) -> Opinion:
        def head(contribution: Floats) -> dict[str, Floats]:
            same = np.tile(clinical.astype(np.float32), (len(contribution), 1))
            return run(HEAD, contribution=contribution.astype(np.float32), clinical=same)

        found = {name: float(of[0]) for name, of in head(np.array([sums.contribution.value])).items()}
        without = sums.contribution.without_each()
        features = sums.features / len(sums.contribution.values)
        distance = run(DISTANCE, features=features[None].astype(np.float32))
        return Opinion(
            found["probability"],
            tuple(head(without)["probability"].tolist()) if len(without) else (),
            gated.further(self.name, found),
            measures={WITHIN: float(distance["within"][0]), OUTSIDE: float(distance["outside"][0])},
        )

    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        return {
            "imagenet_contribution": seen["contribution"],
            "imagenet": np.array([opinion.probability for opinion in opinions]),
            **gated.tested(self.name, opinions),
            # The logarithm: generated pictures are far from any cell.
            "imagenet_distance": np.log(
                [opinion.measures[name] for opinion in opinions for name in self.measure_names]
            ),
        }
