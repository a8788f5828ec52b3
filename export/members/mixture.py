"""Export of the mixtures of experts as two graphs: encoders for pictures, heads for patients."""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from export.graphs import GraphPlan
from export.members.member import Inputs, MemberCard, MemberExport, example_clinical, example_images
from export.precision.int8 import quantize
from infer.members.mixture import ENCODER, HEAD, HEAD_OUTPUTS, Mixture
from train.members.mixture import load_committee
from train.members.mixture_network import Encoders, Head, Heads


class HeadGraph(nn.Module):
    """Bag means and clinical values -> probability, image probability, clinical probability, gate, each (P,)."""

    def __init__(self, head: Heads) -> None:
        super().__init__()
        self.head = head

    def forward(self, bags: Tensor, clinical: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        output = self.head(bags, clinical)
        return output.probability, output.image, output.clinical, output.gate


class MixtureExport(MemberExport):
    """Mixtures of an image expert and a clinical expert, averaged."""

    name = "moe"
    unbounded = frozenset({"maps"})

    def __init__(self, encoder: Encoders, head: Heads) -> None:
        self.encoder, self.head = encoder, head

    @classmethod
    def load(cls, run: Path) -> Self:
        committee = load_committee(run)
        return cls(committee.encoder, committee.head)

    @property
    def plans(self) -> list[GraphPlan]:
        channels = sum(one.image_map.in_channels for one in self._heads)
        bags = {"bags": torch.zeros(2, channels, 3, 3), "clinical": example_clinical()}
        return [
            GraphPlan(ENCODER, self.encoder, {"images": example_images()}, ("maps",)),
            GraphPlan(HEAD, HeadGraph(self.head), bags, HEAD_OUTPUTS),
        ]

    def inputs(self, images: Tensor, clinical: Tensor) -> dict[str, Inputs]:
        with torch.inference_mode():
            maps = self.encoder(images)
        return {ENCODER: {"images": images}, HEAD: {"bags": maps, "clinical": clinical}}

    def section(self) -> dict[str, Any]:
        return {"mixtures": len(self._heads)}

    def card(self, run: Path) -> MemberCard:
        number = len(self._heads)
        return MemberCard(
            self.name,
            f"a mixture of an image expert and a clinical expert (mean of networks from {number} seeds)",
            "the image expert of the first mixture",
            training=("For the mixture's class weights see the recipe.",),
            caveats=(
                "Below the counts of the training patients the probability can rise slightly as the count falls, "
                "because the mixture's gate then relies on the pictures.",
            ),
        )

    def int8(self, crops: Tensor) -> dict[str, bytes]:
        return {Mixture.stand_ins["int8"][ENCODER]: quantize(self.encoder, crops)}

    @property
    def _heads(self) -> list[Head]:
        return [one for one in self.head.each if isinstance(one, Head)]
