"""Export of the baseline as a graph."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from export.graphs import GraphPlan
from export.members.member import Inputs, MemberCard, MemberExport, example_clinical, example_images
from export.parity import ParityError
from infer.members.baseline import GRAPH
from train.core.curves import MALIGNANT_WEIGHT
from train.members.baseline import FOLDER, Baseline, load_baseline

ROUNDING_TOLERANCE = 1e-3  # absolute, for the probability of a picture


class BaselineGraph(nn.Module):
    """Pictures and their patients' clinical values -> probability of malignant (N,).

    The weights of the first linear layer, almost all of the network's, are rounded to float16: 2.4 MB instead of 4.8.
    """

    def __init__(self, network: Baseline) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        widest = self.network.get_parameter("classifier.0.weight")
        with torch.no_grad():
            widest.copy_(widest.half())

    def forward(self, images: Tensor, clinical: Tensor) -> Tensor:
        return self.network(images, clinical).softmax(1)[:, 1]  # type: ignore[no-any-return]


class BaselineExport(MemberExport):
    """A CNN on single pictures."""

    name = "baseline"

    def __init__(self, network: Baseline) -> None:
        self.network, self.graph = network, BaselineGraph(network)

    @classmethod
    def load(cls, run: Path) -> Self:
        return cls(load_baseline(run / FOLDER / "full.safetensors"))

    @property
    def plans(self) -> list[GraphPlan]:
        examples = {"images": example_images(), "clinical": example_clinical()}
        return [GraphPlan(GRAPH, self.graph, examples, ("probability",))]

    def inputs(self, images: Tensor, clinical: Tensor, features: Tensor) -> dict[str, Inputs]:
        return {GRAPH: {"images": images, "clinical": clinical}}

    def section(self) -> dict[str, Any]:
        return {}

    def card(self, run: Path) -> MemberCard:
        return MemberCard(
            self.name,
            "a CNN on single pictures",
            "with all clinical values set to the median of the held-out fold",
            training=(f"In the baseline's loss the class weight of malignant is {MALIGNANT_WEIGHT:g}.",),
        )

    def noted(self, inputs: Mapping[str, Inputs]) -> list[str]:
        """The effect of the float16 weights: the largest change in a probability."""
        batch = inputs[GRAPH].values()
        with torch.inference_mode():
            change = float((self.graph(*batch) - self.network(*batch).softmax(1)[:, 1]).abs().max())
        if not change <= ROUNDING_TOLERANCE:  # so that NaN fails too
            raise ParityError(f"{GRAPH}: float16 weights change a probability by {change:.2g}")
        return [
            "The weights of the CNN's first linear layer are rounded to float16, which changes its probability for "
            f"these pictures by {change:.1e} at most."
        ]
