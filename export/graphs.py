"""torch -> ONNX: the six graphs of a bundle in float32, each with raw inputs and named outputs."""

import copy
import logging
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

from train.members.baseline import Baseline
from train.members.imagenet import ImageNetNetwork
from train.members.mixture_network import Encoders, Head, Heads
from train.members.scan.network import ScanNetwork

OPSET = 20
CROP = (112, 112, 3)
LARGE = 100_000  # weights


@dataclass(frozen=True)
class GraphPlan:
    """A network as a graph."""

    name: str  # file in the bundle
    module: nn.Module
    inputs: dict[str, Tensor]  # name -> example of two rows; the first axis of every input is the batch
    outputs: tuple[str, ...]


class BaselineGraph(nn.Module):
    """Pictures and their patients' clinical values -> probability of malignant (N,).

    The weights of its first linear layer, all but all it has, are rounded to what 16 bits hold: 2.4 MB instead of 4.8.
    """

    def __init__(self, network: Baseline) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        widest = self.network.get_parameter("classifier.0.weight")
        with torch.no_grad():
            widest.copy_(widest.half())

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
    """The bundle's graphs; infer.engine.networks checks the same names and shapes when it loads them."""
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
    _shorten(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _strip(model: onnx.ModelProto) -> None:
    """Take out what torch notes down on the way, in place: stack traces with the paths of this machine among it."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _shorten(model: onnx.ModelProto) -> None:
    """Store large weights of which each is a 16-bit number as such, in place; onnxruntime widens them when it loads."""
    graph = model.graph
    for index, stored in enumerate(graph.initializer):
        weights = numpy_helper.to_array(stored)
        if weights.dtype != np.float32 or weights.size < LARGE:
            continue
        with np.errstate(over="ignore"):
            short = weights.astype(np.float16)
        if not np.array_equal(short.astype(np.float32), weights):
            continue
        name = stored.name
        graph.initializer[index].CopyFrom(numpy_helper.from_array(short, f"{name}.short"))
        graph.node.insert(0, helper.make_node("Cast", [f"{name}.short"], [name], to=TensorProto.FLOAT))
