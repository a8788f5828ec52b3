"""The ImageNet member: regression on features of a network trained on photographs, gated with clinical naive Bayes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from infer.column import Column
from infer.members.member import CLINICAL, ONE_NUMBER, Floats, GraphForm, Mean, Member, Opinion, RunGraph

ENCODER, HEAD = "imagenet_encoder.onnx", "imagenet_head.onnx"


class ImageNet(Member[Mean]):
    """EfficientNet-Lite0's features (Tan & Le 2019). A patient's logit uses the mean contribution of its pictures."""

    name = "imagenet"
    title = "ImageNet member"
    stand_ins = {"float16": {ENCODER: "imagenet_encoder.float16.onnx"}}
    reduced_outputs = {"float16": ("imagenet_contribution", "imagenet")}
    unbounded_outputs = {"imagenet_contribution": 1.0}
    picture_columns = (
        Column(
            "imagenet_contribution",
            "Contribution of this picture to the logit of the image expert",
            "",
            ".6f",
        ),
    )

    @property
    def graphs(self) -> dict[str, GraphForm]:
        """The encoder takes pictures, the head patients."""
        return {
            ENCODER: GraphForm({"images": self.pictures}, ("contribution",)),
            HEAD: GraphForm({"contribution": ONE_NUMBER, "clinical": CLINICAL}, ("probability",)),
        }

    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        """`contribution`: (N,)."""
        return run(ENCODER, images=pictures)

    def begin(self) -> Mean:
        return Mean()

    def add(self, sums: Mean, seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        contribution = float(seen["contribution"][row])
        sums.add(contribution)
        return {"imagenet_contribution": contribution}

    def conclude(self, sums: Mean, run: RunGraph, clinical: Floats) -> Opinion:
        contribution = np.array([sums.value], np.float32)
        found = run(HEAD, contribution=contribution, clinical=clinical[None].astype(np.float32))
        return Opinion(float(found["probability"][0]))

    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        return {
            "imagenet_contribution": seen["contribution"],
            "imagenet": np.array([opinion.probability for opinion in opinions]),
        }
