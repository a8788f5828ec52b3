"""The ImageNet member: regression on features of a network trained on photographs, gated with clinical naive Bayes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from infer.column import Column
from infer.members.backbone import BACKBONE, FEATURES, STAND_INS, form
from infer.members.member import CLINICAL, ONE_NUMBER, Floats, GraphForm, Mean, Member, Opinion, RunGraph

PICTURES, HEAD = "imagenet_pictures.onnx", "imagenet_head.onnx"


class ImageNet(Member[Mean]):
    """On the backbone's features. A patient's logit uses the mean contribution of its pictures."""

    name = "imagenet"
    title = "ImageNet member"
    stand_ins = STAND_INS
    reduced_outputs = dict.fromkeys(STAND_INS, ("imagenet_contribution", "imagenet"))
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
        """The backbone takes pictures, the second their features, the head patients."""
        return {
            BACKBONE: form(self.pictures),
            PICTURES: GraphForm({"features": FEATURES}, ("contribution",)),
            HEAD: GraphForm({"contribution": ONE_NUMBER, "clinical": CLINICAL}, ("probability",)),
        }

    def see(self, run: RunGraph, pictures: Any, clinical: Floats) -> dict[str, Floats]:
        """`contribution`: (N,)."""
        return run(PICTURES, features=run(BACKBONE, images=pictures)["features"])

    def begin(self) -> Mean:
        return Mean()

    def add(self, sums: Mean, seen: Mapping[str, Floats], row: int) -> dict[str, float | int]:
        contribution = float(seen["contribution"][row])
        sums.add(contribution)
        return {"imagenet_contribution": contribution}

    def conclude(self, sums: Mean, run: RunGraph, clinical: Floats) -> Opinion:
        def head(contribution: Floats) -> Floats:
            same = np.tile(clinical.astype(np.float32), (len(contribution), 1))
            return run(HEAD, contribution=contribution.astype(np.float32), clinical=same)["probability"]

        without = sums.without_each()
        return Opinion(float(head(np.array([sums.value]))[0]), tuple(head(without).tolist()) if len(without) else ())

    def tested(self, seen: Mapping[str, Floats], opinions: list[Opinion]) -> dict[str, Floats]:
        return {
            "imagenet_contribution": seen["contribution"],
            "imagenet": np.array([opinion.probability for opinion in opinions]),
        }
