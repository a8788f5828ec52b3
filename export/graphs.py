"""torch -> ONNX: float32 graphs with raw inputs and named outputs."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from train.core.onnx_graph import as_onnx

CROP = (112, 112, 3)
LARGE = 100_000  # weights


@dataclass(frozen=True)
class GraphPlan:
    """A network to be exported as a graph."""

    name: str  # file name in the bundle
    module: nn.Module
    inputs: dict[str, Tensor]  # name -> example with two rows; the first axis of every input is the batch
    outputs: tuple[str, ...]


def export_graph(plan: GraphPlan) -> bytes:
    """Export as one ONNX file with embedded weights and a dynamic batch axis, checked by onnx."""
    model = as_onnx(plan.module, plan.inputs, plan.outputs)
    _strip(model)
    _shorten(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _strip(model: onnx.ModelProto) -> None:
    """Remove torch's metadata in place: it includes stack traces with paths on this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _shorten(model: onnx.ModelProto) -> None:
    """Store large weights in float16 where that is exact, in place; onnxruntime converts them to float32 on loading."""
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
