"""torch -> ONNX: the six graphs of a bundle, each with raw inputs and named outputs."""

import logging
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from train.baseline import Baseline
from train.imagenet import ImageNetNetwork
from train.moe_network import Encoders, Head, Heads
from train.scan.network import ScanNetwork

OPSET = 20
CROP = (112, 112, 3)


@dataclass(frozen=True)
class GraphPlan:
    """A network as a graph."""

    name: str  # file in the bundle
    module: nn.Module
    inputs: dict[str, Tensor]  # name -> example of two rows; the first axis of every input is the batch
    outputs: tuple[str, ...]


class BaselineGraph(nn.Module):
    """Pictures and their patients' clinical values -> probability of malignant (N,)."""

    def __init__(self, network: Baseline) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, clinical: Tensor) -> Tensor:
        return self.network(images, clinical).softmax(1)[:, 1]  # type: ignore[no-any-return]


class HeadGraph(nn.Module):
    """Bag means and clinical values -> probability, image probability, clinical probability, gate, each (P,)."""

    def __init__(self, head: Heads) -> None:
        super().__init__()
        self.head = head

    def forward(self, bags: Tensor, clinical: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        output = self.head(bags, clinical)
        return output.probability, output.image, output.clinical, output.gate


def plan_graphs(
    baseline: Baseline, scan: ScanNetwork, encoder: Encoders, head: Heads, imagenet: ImageNetNetwork
) -> list[GraphPlan]:
    """The bundle's graphs; infer.models checks the same names and shapes when it loads them."""
    images = torch.zeros(2, *CROP, dtype=torch.uint8)
    clinical = torch.ones(2, 3)
    channels = sum(one.image_map.in_channels for one in head.each if isinstance(one, Head))
    return [
        GraphPlan("baseline.onnx", BaselineGraph(baseline), {"images": images, "clinical": clinical}, ("probability",)),
        GraphPlan("scan.onnx", scan, {"images": images}, ("probabilities", "embedding")),
        GraphPlan("moe_encoder.onnx", encoder, {"images": images}, ("maps",)),
        GraphPlan(
            "moe_head.onnx",
            HeadGraph(head),
            {"bags": torch.zeros(2, channels, 3, 3), "clinical": clinical},
            ("probability", "image_probability", "clinical_probability", "gate"),
        ),
        GraphPlan("imagenet_encoder.onnx", imagenet.pictures, {"images": images}, ("contribution",)),
        GraphPlan(
            "imagenet_head.onnx",
            imagenet.head,
            {"contribution": torch.zeros(2), "clinical": clinical},
            ("probability",),
        ),
    ]


def export_graph(plan: GraphPlan) -> bytes:
    """The graph as one ONNX file with its weights inside and a free batch axis, checked by onnx."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    batch = Dim("batch")
    program = torch.onnx.export(
        plan.module.eval(),
        tuple(plan.inputs.values()),
        input_names=list(plan.inputs),
        output_names=list(plan.outputs),
        dynamic_shapes=tuple({0: batch} for _ in plan.inputs),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    if program is None:  # only the legacy exporter writes a file and returns nothing
        raise RuntimeError(f"{plan.name}: torch.onnx.export returned no program")
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _strip(model: onnx.ModelProto) -> None:
    """Take out what torch notes down on the way, in place: stack traces with the paths of this machine among it."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
