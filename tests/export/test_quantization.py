"""int8 encoders compared with a slow reference that sums products in 64-bit integers."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export.parity import ParityError
from export.precision.int8 import LARGEST, quantize
from infer.bundle.load import REFERENCE, load_bundle
from infer.engine.fallback import Engine
from infer.engine.sessions import CPU, Device, Graph
from tests.bundles import INT8
from train.members.mixture_network import Encoder, Encoders

CHANNELS = (4, 6, 8)  # three blocks: 112 -> 28 pixels
Array = npt.NDArray[Any]


def drawn_encoder(seed: int) -> Encoder:
    """Weights and batch norms as after some training: no dead and no exploding layers."""
    torch.manual_seed(seed)
    encoder = Encoder(CHANNELS).eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.3, 1.5)  # type: ignore[arg-type]
    return encoder


def pictures(number: int, seed: int) -> Tensor:
    """Smooth pictures, as cells are."""
    random = np.random.RandomState(seed)
    small = torch.from_numpy(random.rand(number, 3, 8, 8).astype(np.float32))
    large = nn.functional.interpolate(small, (112, 112), mode="bilinear")
    return (255 * large).permute(0, 2, 3, 1).round().to(torch.uint8).contiguous()


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return Encoders([drawn_encoder(1), drawn_encoder(2)])


@pytest.fixture(scope="module")
def data(encoders: Encoders) -> bytes:
    return quantize(encoders, pictures(16, seed=3))


def maps_of(data: bytes, images: Tensor) -> npt.NDArray[np.float32]:
    return Graph("int8", data, Device(CPU, "test"), 1).run(images=images.numpy())["maps"]


def test_the_maps_are_near_those_of_float32(encoders: Encoders, data: bytes) -> None:
    images = pictures(8, seed=4)
    with torch.inference_mode():
        exact = encoders(images).numpy()
    found = maps_of(data, images)
    assert found.shape == exact.shape == (8, 2 * CHANNELS[-1], 28, 28)
    assert np.abs(found - exact).mean() < 0.01 * exact.max()
    # Rounding must not shift the mean of a channel: a patient's features are means over pictures.
    assert np.abs((found - exact).mean((0, 2, 3))).max() < 0.003 * exact.max()


def test_every_weight_has_seven_bits_and_every_channel_uses_them(data: bytes) -> None:
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(data).graph.initializer}
    weights = {name: array for name, array in stored.items() if array.dtype == np.int8 and array.ndim == 4}
    assert len(weights) == 2 * 2 * (len(CHANNELS) - 1)
    for name, array in weights.items():
        assert np.abs(array).max((1, 2, 3)).tolist() == [LARGEST] * len(array), name


def test_the_graph_is_what_its_integers_say(data: bytes) -> None:
    """Bit by bit after the float32 block: sums in 64-bit integers, one rounding per layer."""
    model = onnx.load_from_string(data)
    nodes = list(model.graph.node)
    split = [node.op_type for node in nodes].index("Split")
    images = pictures(2, seed=5)
    values = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    values |= float32_block(model, nodes[: split + 1]).run(images=images.numpy())
    for node in nodes[split + 1 : -1]:
        values[node.output[0]] = SLOW[node.op_type](*(values[name] for name in node.input))
    expected = np.concatenate([values[name] for name in nodes[-1].input], axis=1)
    assert len(np.unique(expected)) > 200
    assert np.array_equal(maps_of(data, images), expected)


def float32_block(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> Graph:
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in nodes[-1].output]
    graph = onnx.helper.make_graph(nodes, "block", model.graph.input, outputs, model.graph.initializer)
    block = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return Graph("block", block.SerializeToString(), Device(CPU, "test"), 1)


def rounded(values: Array, scale: Array, zero: Array) -> Array:
    assert zero == 0
    return np.clip(np.rint(values / scale), 0, 255).astype(np.uint8)


def convolved(
    x: Array, x_scale: Array, x_zero: Array, weight: Array, weight_scale: Array, weight_zero: Array,
    scale: Array, zero: Array, bias: Array,
) -> Array:  # fmt: skip
    assert not any(one.any() for one in (x_zero, weight_zero, zero))
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = x.shape[2:]
    sums = np.zeros((len(x), len(weight), height, width), np.int64) + bias[:, None, None]
    for row in range(3):
        for column in range(3):
            window = padded[:, :, row : row + height, column : column + width]
            sums += np.einsum("nchw,oc->nohw", window, weight.astype(np.int64)[:, :, row, column])
    factor = (x_scale * weight_scale / scale)[:, None, None]
    return np.clip(np.rint(sums.astype(np.float32) * factor), 0, 255).astype(np.uint8)


def pooled(x: Array) -> Array:
    number, channels, height, width = x.shape
    found: Array = x.reshape(number, channels, height // 2, 2, width // 2, 2).max((3, 5))
    return found


def widened(values: Array, scale: Array, zero: Array) -> Array:
    assert zero == 0
    return values.astype(np.float32) * scale


SLOW: dict[str, Callable[..., Array]] = {
    "QuantizeLinear": rounded, "QLinearConv": convolved, "MaxPool": pooled, "DequantizeLinear": widened
}  # fmt: skip


def altered(data: bytes, layer: str, alter: Callable[[dict[str, Array], str], Array]) -> bytes:
    """The graph with the bias of one layer replaced by the result of `alter`."""
    model = onnx.load_from_string(data)
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    (bias,) = [one for one in model.graph.initializer if one.name == f"{layer}.bias"]
    bias.CopyFrom(numpy_helper.from_array(alter(stored, layer), bias.name))
    return bytes(model.SerializeToString())


def rounding_down(stored: dict[str, Array], layer: str) -> Array:
    """A bias lower by half a step, so that every value is rounded down."""
    mixture, number = layer.removeprefix("each.").split(".")
    before = f"each.{mixture}.{int(number) - 1}.scale" if number != "0" else f"each.{mixture}.scale"
    half = stored[f"{layer}.scale"] / 2 / (stored[before] * stored[f"{layer}.weight_scale"])
    found: Array = (stored[f"{layer}.bias"] - np.rint(half)).astype(np.int32)
    return found


def losing_the_last_bias(stored: dict[str, Array], layer: str) -> Array:
    bias = stored[f"{layer}.bias"].copy()
    bias[-1] = 0
    return bias


@pytest.mark.parametrize(
    ("layer", "alter"),
    [
        ("each.0.0", rounding_down), ("each.0.4", rounding_down), ("each.1.2", rounding_down),
        ("each.2.9", rounding_down), ("each.0.3", losing_the_last_bias),
    ],
)  # fmt: skip
def test_a_processor_that_computes_integers_wrongly_is_found_out(
    layer: str, alter: Callable[[dict[str, Array], str], Array]
) -> None:
    """Faults are inserted into the shipped graph; its self-test must detect them."""
    bundle = load_bundle(REFERENCE)
    wrong = replace(bundle, graphs=bundle.graphs | {INT8: altered(bundle.graphs[INT8], layer, alter)})
    engine = Engine(wrong, Device(CPU, "test"), None, 1)
    engine.run_self_test()
    assert (engine.precision, len(engine.downgrades)) == ("float32", 1)


def test_a_channel_that_integers_cannot_hold_is_refused(encoders: Encoders) -> None:
    """Its weights are negligible compared with its bias."""
    almost_dead = copy.deepcopy(encoders)
    norms = [module for module in almost_dead.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        norms[-1].weight[0], norms[-1].bias[0] = 1e-8, 0.5
    with pytest.raises(ParityError, match="layer 3 of an encoder cannot be quantised"):
        quantize(almost_dead, pictures(4, seed=3))


@pytest.mark.parametrize("layer", [0, 3])
def test_a_layer_that_says_nothing_is_refused(encoders: Encoders, layer: int) -> None:
    dead = copy.deepcopy(encoders)
    norms = [module for module in dead.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        norms[2 + layer].bias.fill_(-1000.0)
    with pytest.raises(ParityError, match=f"layer {layer} of an encoder cannot be quantised"):
        quantize(dead, pictures(4, seed=3))


def test_scales_leave_room_above_the_largest_activation(encoders: Encoders, data: bytes) -> None:
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(data).graph.initializer}
    for number, encoder in enumerate(encoders.each):
        assert isinstance(encoder, Encoder)
        value, largest = encoder.normalise(pictures(16, seed=3)), []
        with torch.inference_mode():
            for module in encoder.blocks:
                value = module(value)
                if isinstance(module, nn.ReLU):
                    largest.append(float(value.max()))
        names = [f"each.{number}.scale", *(f"each.{number}.{layer}.scale" for layer in range(4))]
        found = [float(stored[name]) for name in names]
        assert found == pytest.approx([1.5 * value / 255 for value in largest[1:]], rel=1e-5)
