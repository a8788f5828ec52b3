"""float16 graphs compared with a slow reference that rounds after every layer; what the self-test detects."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference
from torch import Tensor, nn
from torch.nn import functional

from export.graphs import GraphPlan, export_graph
from export.parity import ParityError
from export.precision.float16 import emulate, halve
from infer.bundle.load import REFERENCE, load_bundle
from infer.engine.fallback import Engine
from infer.engine.sessions import CPU, Device, Graph
from tests.bundles import HALVES
from tests.export.test_quantization import drawn_encoder, pictures
from train.members.mixture_network import Encoder, Encoders

NAME = "moe_encoder.onnx"
DEVICE = Device(CPU, "test")


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return Encoders([drawn_encoder(1), drawn_encoder(2)])


@pytest.fixture(scope="module")
def exact(encoders: Encoders) -> bytes:
    images = torch.zeros(2, 112, 112, 3, dtype=torch.uint8)
    return export_graph(GraphPlan(NAME, encoders, {"images": images}, ("maps",)))


def rounded(value: Tensor) -> Tensor:
    return value.half().float()


def in_16_bits(encoder: Encoder, images: Tensor) -> Tensor:
    """Computes layer by layer in double precision and rounds each result; batch norm is folded, as in a graph."""
    value = rounded(encoder.normalise(images))
    modules = list(encoder.blocks)
    for index, module in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            norm = modules[index + 1]
            assert isinstance(norm, nn.BatchNorm2d)
            folded = nn.utils.fusion.fuse_conv_bn_eval(module, norm)
            weight, bias = rounded(folded.weight).double(), rounded(folded.get_parameter("bias")).double()
            value = rounded(functional.conv2d(value.double(), weight, bias, padding=1).float())
        elif not isinstance(module, nn.BatchNorm2d):
            value = module(value)
    return value


def test_the_emulation_rounds_after_every_layer(encoders: Encoders, exact: bytes) -> None:
    images = pictures(4, seed=3)
    found = Graph("emulated", emulate(exact), DEVICE, 1).run(images=images.numpy())["maps"]
    with torch.inference_mode():
        expected = torch.cat([in_16_bits(one, images) for one in encoders.each if isinstance(one, Encoder)], 1).numpy()
        in_float32 = encoders(images).numpy()
    # Sums in another order are sometimes rounded differently, and the effect propagates from layer to layer.
    some = expected > 0  # zeros are the same in any precision
    assert np.mean((found == expected)[some]) > 0.98
    assert np.abs(found - expected).max() <= 2e-3 * np.abs(expected).max()
    assert np.mean((in_float32 == expected)[some]) < 0.1
    normal = found[found >= np.finfo(np.float16).smallest_normal]
    assert np.array_equal(normal.astype(np.float16).astype(np.float32), normal)


def test_a_processor_rounds_weights_alone(encoders: Encoders, exact: bytes) -> None:
    """So a CPU does not show what a GPU computes. The results are close anyway: the graph is correct."""
    images = pictures(4, seed=3).numpy()
    emulated = Graph("emulated", emulate(exact), DEVICE, 1).run(images=images)["maps"]
    here = Graph("half", halve(NAME, exact), DEVICE, 1, (NAME, exact)).run(images=images)["maps"]
    assert np.mean((here == emulated)[emulated > 0]) < 0.5
    assert np.abs(here - emulated).max() <= 2e-3 * np.abs(emulated).max()


@pytest.mark.parametrize("name", HALVES)
def test_convolutions_are_narrow_and_the_rest_is_not(name: str) -> None:
    """In the shipped graphs, by the types that onnx infers."""
    model = shape_inference.infer_shapes(onnx.load_from_string(load_bundle(REFERENCE).graphs[HALVES[name]]))
    graph = model.graph
    types = {one.name: one.type.tensor_type.elem_type for one in (*graph.value_info, *graph.input, *graph.output)}
    types |= {one.name: one.data_type for one in graph.initializer}
    found: dict[str, set[int]] = {}
    for node in graph.node:
        found.setdefault(node.op_type, set()).add(types[node.output[0]])
    half, single = {TensorProto.FLOAT16}, {TensorProto.FLOAT}
    assert found["Conv"] == half
    for operator in ("Relu", "Clip", "MaxPool"):
        assert found.get(operator, half) <= (half if name != "baseline.onnx" or operator != "Relu" else half | single)
    for operator in ("Gemm", "ReduceMean", "Softmax", "Concat", "Mul", "Sub", "Div"):
        assert found.get(operator, single) == single
    assert {one.type.tensor_type.elem_type for one in graph.output} == single


@pytest.mark.parametrize("name", HALVES)
def test_a_graph_names_its_weights_and_stores_none(name: str) -> None:
    graphs = load_bundle(REFERENCE).graphs
    data = graphs[name]
    exact = {one.name: one for one in onnx.load_from_string(data).graph.initializer}
    for one in onnx.load_from_string(graphs[HALVES[name]]).graph.initializer:
        if one.data_location != TensorProto.EXTERNAL:
            assert len(one.raw_data) < 64
            continue
        place = {entry.key: entry.value for entry in one.external_data}
        assert place["location"] == name
        start = int(place["offset"])
        assert data[start : start + int(place["length"])] == exact[one.name].raw_data


def test_a_weight_that_16_bits_cannot_hold_is_refused(encoders: Encoders) -> None:
    large = copy.deepcopy(encoders)
    convolution = next(module for module in large.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        convolution.weight[0, 0, 0, 0] = 1e6
    images = torch.zeros(2, 112, 112, 3, dtype=torch.uint8)
    data = export_graph(GraphPlan(NAME, large, {"images": images}, ("maps",)))
    with pytest.raises(ParityError, match="is outside the range of float16"):
        halve(NAME, data)


def without_a_relu(model: onnx.ModelProto) -> None:
    last = [node for node in model.graph.node if node.op_type in {"Relu", "Clip"}][-1]
    last.op_type = "Identity"
    del last.input[1:]


def without_a_bias(model: onnx.ModelProto) -> None:
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    del last.input[2:]


def with_smaller_weights(model: onnx.ModelProto, share: float = 1.0) -> None:
    """Outputs of the last convolution are too small by one percent."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    convolution = convolutions[round(share * (len(convolutions) - 1))]
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.99, np.float16), "factor"))
    index = list(model.graph.node).index(convolution)
    model.graph.node.insert(index, helper.make_node("Mul", [convolution.input[1], "factor"], ["smaller"]))
    convolution.input[1] = "smaller"


def with_smaller_weights_in_the_middle(model: onnx.ModelProto) -> None:
    with_smaller_weights(model, 0.5)


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize(
    "fault", [without_a_relu, without_a_bias, with_smaller_weights, with_smaller_weights_in_the_middle]
)
def test_a_gpu_that_computes_wrongly_is_found_out(
    name: str, fault: Callable[[onnx.ModelProto], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults are inserted into the shipped graph. Its self-test detects them, but would miss single channels."""
    monkeypatch.setattr("infer.engine.fallback.FASTEST", {CPU: "float16"})
    bundle = load_bundle(REFERENCE)
    model = onnx.load_from_string(bundle.graphs[HALVES[name]])
    fault(model)
    wrong = replace(bundle, graphs=bundle.graphs | {HALVES[name]: model.SerializeToString()})
    engine = Engine(wrong, DEVICE, None, 1)
    engine.run_self_test()
    assert engine.precision == "float32"
    (said,) = engine.downgrades
    assert "self-test failed" in said
