"""float16 graphs for GPUs, of the networks that process pictures: convolutions and the operators between them.

Normalisation before the first convolution, and means, linear layers and softmax after the last, stay in float32. A
float16 graph stores no weights: it refers to their location in the bytes of the float32 graph, and casts them to
float16 on loading.

A float16 graph cannot be tested on a CPU: onnxruntime computes it in float32 there, without the rounding between
layers. `emulate` makes a float32 graph that includes all of this rounding.
"""

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.parity import ParityError
from infer.bundle.load import Bundle
from infer.bundle.manifest import load_members, stand_ins

FIRST = "Conv"
BETWEEN = frozenset({"Relu", "Clip", "MaxPool", "Add"})  # computed in float16 if an input is float16
SPLITTER = 2.0**13 + 1  # leaves 11 of float32's 24 significant bits
STORED = 64  # bytes; tensors of at least this size are referenced, not stored


def halve(name: str, data: bytes) -> bytes:
    """Convert a float32 graph to float16, with the same inputs and outputs.

    Args:
        name: file name of the float32 graph.
        data: its bytes, which are needed for loading the float16 graph.

    Raises:
        ParityError: a weight is outside the range of float16.
    """
    model = onnx.load_from_string(data)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes, narrow = _narrowed(list(graph.node), weights)
    for stale in (graph.node, graph.value_info):
        del stale[:]
    graph.node.extend(nodes)
    for weight in narrow:
        with np.errstate(over="ignore"):
            if not np.isfinite(numpy_helper.to_array(weights[weight]).astype(np.float16)).all():
                raise ParityError(f"{name}: {weight} is outside the range of float16. Export without --reduced")
    onnx.checker.check_model(model, full_check=True)
    for tensor in graph.initializer:
        if len(tensor.raw_data) >= STORED:
            _name_place(tensor, name, data)
    return bytes(model.SerializeToString())


def on_a_gpu(bundle: Bundle) -> Bundle:
    """A bundle with emulated float16 graphs, for scoring on a CPU in precision float16."""
    instead = stand_ins(load_members(bundle.manifest), "float16")
    graphs = {other: emulate(bundle.graphs[file]) for file, other in instead.items()}
    return replace(bundle, graphs=bundle.graphs | graphs)


def emulate(data: bytes) -> bytes:
    """A float32 graph that computes the same as the float16 graph on hardware that accumulates in float32.

    Weights, the input of the first convolution and the output of every convolution and sum are rounded to 11
    significant bits by Veltkamp splitting (Dekker 1971). The limits of float16, 6e-5 and 65,504, are not emulated.

    Args:
        data: bytes of the float32 graph.
    """
    model = onnx.load_from_string(data)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made: list[onnx.NodeProto] = []
    rounded: dict[str, str] = {}
    graph.initializer.append(numpy_helper.from_array(np.array(SPLITTER, np.float32), "splitter"))

    def add_rounding(value: str, result: str) -> None:
        made.extend(
            [
                helper.make_node("Mul", [value, "splitter"], [f"{result}.large"]),
                helper.make_node("Sub", [f"{result}.large", value], [f"{result}.rest"]),
                helper.make_node("Sub", [f"{result}.large", f"{result}.rest"], [result]),
            ]
        )

    nodes, halves = list(graph.node), set[str]()
    for node in nodes:
        if not _is_narrow(node, halves):
            made.append(node)
            continue
        for index, one in enumerate(node.input):
            if one in weights:
                exact = numpy_helper.to_array(weights[one])
                weights[one].CopyFrom(numpy_helper.from_array(exact.astype(np.float16).astype(np.float32), one))
            elif one and one not in halves:
                if one not in rounded:
                    rounded[one] = f"{one}.rounded"
                    add_rounding(one, rounded[one])
                node.input[index] = rounded[one]
        (result,) = node.output
        halves.add(result)
        made.append(node)
        if node.op_type in {FIRST, "Add"}:  # the output of the others is always one of their inputs, already rounded
            node.output[0] = f"{result}.exact"
            add_rounding(node.output[0], result)
    for stale in (graph.node, graph.value_info):
        del stale[:]
    graph.node.extend(made)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _is_narrow(node: onnx.NodeProto, halves: set[str]) -> bool:
    return node.op_type == FIRST or (node.op_type in BETWEEN and bool(halves.intersection(node.input)))


def _narrowed(
    nodes: list[onnx.NodeProto], weights: dict[str, onnx.TensorProto]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """Nodes, with casts inserted where the precision changes, and the names of the weights cast to float16."""
    made: list[onnx.NodeProto] = []
    halves: set[str] = set()  # names of float16 values
    cast: dict[tuple[str, int], str] = {}
    narrow: set[str] = set()

    def as_type(value: str, kind: int) -> str:
        if (value, kind) not in cast:
            cast[value, kind] = f"{value}.{'half' if kind == TensorProto.FLOAT16 else 'float'}"
            made.append(helper.make_node("Cast", [value], [cast[value, kind]], to=kind))
        return cast[value, kind]

    for node in nodes:
        if _is_narrow(node, halves):
            narrow |= weights.keys() & set(node.input)
            inputs = [one if one in halves or not one else as_type(one, TensorProto.FLOAT16) for one in node.input]
            halves |= set(node.output)
        else:
            inputs = [as_type(one, TensorProto.FLOAT) if one in halves else one for one in node.input]
        del node.input[:]
        node.input.extend(inputs)
        made.append(node)
    return made, narrow


def _name_place(tensor: onnx.TensorProto, name: str, data: bytes) -> None:
    """Replace the tensor's data by a reference into the other graph's bytes; any location with equal bytes will do."""
    place = {"location": name, "offset": str(data.index(tensor.raw_data)), "length": str(len(tensor.raw_data))}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
