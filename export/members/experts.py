"""Export of the mixtures of experts as one graph, from a patient's mean features and clinical values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from export.graphs import GraphPlan
from export.members.backbone import UNBOUNDED, backbone_plan, fitted_with
from export.members.gated import HeadGraph
from export.members.member import Inputs, MemberCard, MemberExport, example_clinical
from infer.members.backbone import BACKBONE
from infer.members.gated import OUTPUTS
from infer.members.mixture import HEAD
from train.members.experts import FOLDER, Committee, load_experts


class ExpertsExport(MemberExport):
    """Mixtures of an image expert and a clinical expert, averaged."""

    name = "moe"
    unbounded = UNBOUNDED

    def __init__(self, committee: Committee, numbers: Mapping[str, Any]) -> None:
        self.committee, self.fitted_with = committee, numbers

    @classmethod
    def load(cls, run: Path) -> Self:
        return cls(load_experts(run), fitted_with(run / FOLDER))

    @property
    def plans(self) -> list[GraphPlan]:
        patients = {"features": torch.zeros(2, self.committee.dimensions.features), "clinical": example_clinical()}
        return [backbone_plan(), GraphPlan(HEAD, HeadGraph(self.committee), patients, OUTPUTS)]

    def inputs(self, images: Tensor, clinical: Tensor, features: Tensor) -> dict[str, Inputs]:
        return {BACKBONE: {"images": images}, HEAD: {"features": features, "clinical": clinical}}

    def section(self) -> dict[str, Any]:
        return {}

    def card(self, run: Path) -> MemberCard:
        number = self.committee.dimensions.mixtures
        several = f" (mean of networks from {number} seeds)" if number > 1 else ""
        return MemberCard(
            self.name,
            f"a mixture of an image expert, on a patient's mean features, and a clinical expert{several}",
            "the image experts",
            training=("In the mixture's loss both classes weigh alike.",),
            caveats=(
                "Below the counts of the training patients the probability can rise slightly as the count falls, "
                "because the mixture's gate then relies on the pictures.",
            ),
        )

    def numbers(self) -> dict[str, Any]:
        return {self.name: dict(self.fitted_with)}
