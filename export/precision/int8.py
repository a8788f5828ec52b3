"""The mixtures' encoders in int8: one graph for CPUs, faster than float32 and with nearly the same results.

Scales follow Jacob et al. 2018 ("Quantization and Training of Neural Networks"), one per output channel of a weight;
bias correction follows Nagel et al. 2019 ("Data-Free Quantization"). The first block, with the largest maps and the
fewest weights, stays in float32, with all mixtures concatenated. Everything after it is QLinearConv, whose saturation
at 0 acts as the ReLU. Weights use 7 bits, so that 16-bit accumulation on CPUs without VNNI cannot overflow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.graphs import CROP
from export.parity import ParityError
from train.core.onnx_graph import OPSET
from train.members.mixture_network import Encoder, Encoders

IR_VERSION = 10
STEM = 2  # convolutions of the first block, in float32
LARGEST = 63  # largest absolute value of a quantised weight
LEVELS = 255  # largest value of a quantised activation; the smallest is 0
# The range exceeds the largest activation on the calibration pictures by this factor: other pictures may have larger
# activations, which saturate.
HEADROOM = 1.5
LARGEST_BIAS = 2**30  # together with the products of 256 channels this still fits into 32 bits


@dataclass(frozen=True)
class Layer:
    """A quantised convolution: its output is scale_in * weight_scale * (sum of products + bias), clipped at 0."""

    weight: npt.NDArray[np.int8]  # (out, in, 3, 3)
    weight_scale: npt.NDArray[np.float32]  # (out,)
    bias: npt.NDArray[np.int32]  # (out,) in units of scale_in * weight_scale
    scale_in: float
    scale_out: float
    pooled: bool  # whether a 2 x 2 max-pool precedes it


def quantize(encoders: Encoders, crops: Tensor) -> bytes:
    """Quantise the encoders into one ONNX graph with the inputs and outputs of `moe_encoder.onnx`.

    Args:
        encoders: the float32 encoders.
        crops: (N, 112, 112, 3) uint8 pictures of cells for calibrating the activation ranges.

    Raises:
        ParityError: a layer cannot be represented in integers.
    """
    each = [one for one in encoders.each if isinstance(one, Encoder)]
    convolutions = [_folded(one) for one in each]
    with torch.inference_mode():
        layers = [_integers(one, folded, crops) for one, folded in zip(each, convolutions, strict=True)]
    model = _graph(each[0], [folded[:STEM] for folded in convolutions], layers)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _folded(encoder: Encoder) -> list[nn.Conv2d]:
    """The convolutions of an encoder, with batch norm folded in."""
    blocks = list(encoder.blocks)
    return [
        fuse_conv_bn_eval(one, norm)
        for one, norm in pairwise(blocks)
        if isinstance(one, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]


def _integers(encoder: Encoder, convolutions: Sequence[nn.Conv2d], crops: Tensor) -> list[Layer]:
    """Quantise layer by layer: the output range, and a bias that corrects the mean shift caused by rounding."""
    exact = encoder.normalise(crops)
    for convolution in convolutions[:STEM]:
        exact = convolution(exact).relu()
    scale = _scale(exact)
    rounded = _rounded(exact, scale)
    layers: list[Layer] = []
    for index, convolution in enumerate(convolutions[STEM:]):
        pooled = index % 2 == 0
        if pooled:
            exact, rounded = functional.max_pool2d(exact, 2), functional.max_pool2d(rounded, 2)
        weight_scale = convolution.weight.abs().amax((1, 2, 3)).clamp_min(1e-12) / LARGEST
        weight = (convolution.weight / weight_scale[:, None, None, None]).round()
        before = convolution(exact)
        products = functional.conv2d(rounded, weight * weight_scale[:, None, None, None], padding=1)
        unit = scale * weight_scale
        bias = ((before - products).mean((0, 2, 3)) / unit).round()
        exact, scale_in = before.relu(), scale
        scale = _scale(exact)
        rounded = _rounded(products + (bias * unit)[:, None, None], scale)
        if not (0 < scale_in < np.inf and 0 < scale < np.inf and bias.abs().max() < LARGEST_BIAS):
            raise ParityError(
                f"layer {index} of an encoder cannot be quantised: a channel or the whole layer is dead. Export "
                "without --reduced"
            )
        layers.append(
            Layer(
                weight.numpy().astype(np.int8),
                weight_scale.numpy(),
                bias.numpy().astype(np.int32),
                scale_in,
                scale,
                pooled,
            )
        )
    return layers


def _scale(values: Tensor) -> float:
    return HEADROOM * float(values.max()) / LEVELS


def _rounded(values: Tensor, scale: float) -> Tensor:
    return (values / scale).round().clamp(0, LEVELS) * scale


class _Graph:
    """Collects nodes and constants in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: npt.ArrayLike, kind: npt.DTypeLike) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=kind), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output


def _graph(first: Encoder, stems: list[list[nn.Conv2d]], layers: list[list[Layer]]) -> onnx.ModelProto:
    graph = _Graph()
    value = graph.node(
        "Cast", [graph.node("Transpose", ["images"], "planes", perm=[0, 3, 1, 2])], "pixels", to=TensorProto.FLOAT
    )
    scale = graph.constant("scale", first.normalise.scale.numpy(), np.float32)
    shift = graph.constant("shift", first.normalise.shift.numpy(), np.float32)
    value = graph.node("Add", [graph.node("Mul", [value, scale], "scaled"), shift], "normalised")
    for index in range(STEM):
        of_all = [stem[index] for stem in stems]
        weight = np.concatenate([one.weight.detach().numpy() for one in of_all])
        bias = np.concatenate([one.get_parameter("bias").detach().numpy() for one in of_all])
        names = [
            graph.constant(f"stem.{index}.weight", weight, np.float32),
            graph.constant(f"stem.{index}.bias", bias, np.float32),
        ]
        groups = len(stems) if index else 1  # the first convolutions share the picture, the second have separate maps
        value = graph.node("Conv", [value, *names], f"stem.{index}.sums", pads=[1] * 4, group=groups)
        value = graph.node("Relu", [value], f"stem.{index}")
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    value = graph.node("MaxPool", [value], "stem", **pool)
    parts = [f"each.{number}.stem" for number in range(len(stems))]
    graph.nodes.append(helper.make_node("Split", [value], parts, "each", axis=1, num_outputs=len(parts)))
    zero = graph.constant("zero", 0, np.uint8)
    maps = []
    for number, (part, of_one) in enumerate(zip(parts, layers, strict=True)):
        name = f"each.{number}"
        scale = graph.constant(f"{name}.scale", of_one[0].scale_in, np.float32)
        value = graph.node("QuantizeLinear", [part, scale, zero], f"{name}.rounded")
        for index, layer in enumerate(of_one):
            here = f"{name}.{index}"
            if layer.pooled and index:
                value = graph.node("MaxPool", [value], f"{here}.pooled", **pool)
            scale_out = graph.constant(f"{here}.scale", layer.scale_out, np.float32)
            value = graph.node(
                "QLinearConv",
                [
                    value, scale, zero,
                    graph.constant(f"{here}.weight", layer.weight, np.int8),
                    graph.constant(f"{here}.weight_scale", layer.weight_scale, np.float32),
                    graph.constant(f"{here}.weight_zero", np.zeros(len(layer.weight)), np.int8),
                    scale_out, zero,
                    graph.constant(f"{here}.bias", layer.bias, np.int32),
                ],
                here,
                pads=[1] * 4,
            )  # fmt: skip
            scale = scale_out
        maps.append(graph.node("DequantizeLinear", [value, scale, zero], f"{name}.maps"))
    graph.node("Concat", maps, "maps", axis=1)
    return _model(graph, layers)


def _model(graph: _Graph, layers: list[list[Layer]]) -> onnx.ModelProto:
    channels = sum(len(of_one[-1].weight) for of_one in layers)
    side = CROP[0] >> sum(layer.pooled for layer in layers[0])
    built = helper.make_graph(
        graph.nodes,
        "moe_encoder",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *CROP])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["batch", channels, side, side])],
        graph.constants,
    )
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
