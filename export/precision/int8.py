"""The backbone in int8: one graph for CPUs, faster than float32 and with nearly the same features.

Scales follow Jacob et al. 2018 ("Quantization and Training of Neural Networks"), one per output channel of a weight.
Layers are quantised in order, each on what the quantised layers before it give: its weights are fitted to that, and its
bias takes up the mean error that has come about until then (Nagel et al. 2019, "Data-Free Quantization").
Normalisation, resizing, the stem and the first blocks, with the largest maps and the fewest weights, stay in float32,
and so does the mean over the last maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.graphs import GraphPlan, export_graph
from export.parity import ParityError
from export.precision.integer_graph import LEVELS, MICROSOFT, Layer, Nodes, Range, Value
from export.precision.weights import depthwise, pointwise, refitted
from train.core.threads import on_one_thread
from train.data.bags import in_batches
from train.members.embedding import Convolution, FrozenBackbone, InvertedResidual

FLOAT_BLOCKS = 3  # inverted residual blocks in float32
CHUNK = 8  # pictures at a time
SAMPLE = 400_000  # values that choose a range
SHRINKAGE = np.linspace(0.3, 1, 36)  # of the range from the smallest to the largest value
# A channel with hardly any weights is a constant. Its scale is such that its bias is at most this.
LARGEST_BIAS = 2**24


class Start(nn.Module):
    """The part in float32: pictures (N, H, W, 3) -> maps (N, C, H', W')."""

    def __init__(self, network: FrozenBackbone, blocks: int) -> None:
        super().__init__()
        self.network, self.blocks = network, blocks

    def forward(self, images: Tensor) -> Tensor:
        embedding = self.network.embedding
        maps: Tensor = embedding.blocks[: self.blocks](embedding.stem(self.network.shown(images)))
        return maps


@dataclass(frozen=True)
class Maps:
    """The same pictures' maps, in chunks: as in float32, and as the quantised layers give them."""

    exact: Sequence[Tensor]
    integers: Sequence[Tensor]  # uint8
    range: Range


@on_one_thread  # so that the sums, and with them the integers, are the same on every machine
def quantize(network: FrozenBackbone, crops: Tensor) -> bytes:
    """Quantise the backbone into an ONNX graph with the inputs and outputs of its graph in float32.

    Args:
        network: the float32 backbone.
        crops: (N, 112, 112, 3) uint8 pictures of cells for calibration.

    Raises:
        ParityError: a layer cannot be represented in integers.
    """
    start, nodes = Start(network, FLOAT_BLOCKS).eval(), Nodes()
    with torch.inference_mode():
        maps = _rounded([start(part) for part in in_batches(crops, CHUNK)], "start")
        value = nodes.quantised("maps", "start", maps.range)
        for number, block in enumerate(network.embedding.blocks[FLOAT_BLOCKS:], FLOAT_BLOCKS):
            assert isinstance(block, InvertedResidual)  # noqa: S101
            value, maps = _block(block, value, maps, nodes, f"block.{number}")
        value, maps = _layer(network.embedding.head, value, maps, nodes, "head")
    last = nodes.dequantised(value, "last")
    nodes.node("ReduceMean", [last, nodes.constant("axes", [2, 3], np.int64)], "features", keepdims=0)
    example = torch.zeros((2, *crops.shape[1:]), dtype=torch.uint8)
    model = onnx.load_from_string(export_graph(GraphPlan("start", start, {"images": example}, ("maps",))))
    graph = model.graph
    graph.node.extend(nodes.nodes)
    graph.initializer.extend(nodes.constants)
    features = maps.exact[0].shape[1]
    graph.output[0].CopyFrom(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", features]))
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _block(block: InvertedResidual, value: Value, maps: Maps, nodes: Nodes, name: str) -> tuple[Value, Maps]:
    first_value, first = value, maps
    for index, layer in enumerate(block.layers):
        assert isinstance(layer, Convolution)  # noqa: S101
        value, maps = _layer(layer, value, maps, nodes, f"{name}.{index}")
    if not block.residual:
        return value, maps
    exact = [a + b for a, b in zip(first.exact, maps.exact, strict=True)]
    total = _range(exact, name)
    integers = [
        total.integers(first.range.numbers(a) + maps.range.numbers(b)).to(torch.uint8)
        for a, b in zip(first.integers, maps.integers, strict=True)
    ]
    return nodes.added(first_value, value, name, total), Maps(exact, integers, total)


def _layer(layer: Convolution, value: Value, maps: Maps, nodes: Nodes, name: str) -> tuple[Value, Maps]:
    made, after = _integers(layer, maps, name)
    return nodes.convolved(value, name, made), after


def _integers(layer: Convolution, maps: Maps, name: str) -> tuple[Layer, Maps]:
    """Quantise a layer: weights, a bias that corrects the mean error, and the range of the output."""
    convolution = fuse_conv_bn_eval(layer.convolution, layer.norm)
    exact_weight, exact_bias = convolution.weight, convolution.get_parameter("bias")
    left, right, top, bottom = layer.padding(*maps.exact[0].shape[2:])

    def convolved(values: Tensor, weight: Tensor) -> Tensor:
        padded = functional.pad(values, (left, right, top, bottom))
        return functional.conv2d(padded, weight, stride=convolution.stride, groups=convolution.groups)

    given = maps.range
    if convolution.groups > 1:
        weight, weight_scale = depthwise(exact_weight)
    else:
        covariance, shared = _covariances(maps)
        weight, weight_scale = pointwise(refitted(exact_weight, covariance, shared), covariance)
    least = exact_bias.abs() / (given.scale * LARGEST_BIAS)
    weight = (weight * (weight_scale / weight_scale.maximum(least))[:, None, None, None]).round()
    weight_scale = weight_scale.maximum(least)
    unit = weight_scale * given.scale
    sums = [convolved(part.float() - given.zero, weight) for part in maps.integers]
    exact = [convolved(part, exact_weight).add_(exact_bias[:, None, None]) for part in maps.exact]
    bias = ((_means(exact) - unit * _means(sums)) / unit).round().float()
    if layer.active:
        exact = [part.clamp_(0, 6) for part in exact]
    output = _range(exact, name)
    if not (bias.abs().max() < 2 * LARGEST_BIAS and torch.isfinite(unit / output.scale).all()):
        raise ParityError(f"{name} of the backbone cannot be quantised: a bias is too large. Export without --reduced")
    factor, shift = unit[:, None, None], bias[:, None, None]
    integers = [output.integers(part.add_(shift).mul_(factor)).to(torch.uint8) for part in sums]
    made = Layer(
        weight.numpy().astype(np.int8),
        weight_scale.numpy(),
        bias.numpy().astype(np.int32),
        convolution.stride[0],
        (top, left, bottom, right),
        convolution.groups,
        output,
    )
    return made, Maps(exact, integers, output)


def _rounded(exact: Sequence[Tensor], name: str) -> Maps:
    given = _range(exact, name)
    return Maps(exact, [given.integers(part).to(torch.uint8) for part in exact], given)


def _means(parts: Sequence[Tensor]) -> Tensor:
    """Mean of each channel: (C,)."""
    sizes = sum(part.numel() // part.shape[1] for part in parts)
    return torch.stack([part.sum((0, 2, 3), dtype=torch.float64) for part in parts]).sum(0) / sizes


def _covariances(maps: Maps) -> tuple[Tensor, Tensor]:
    """Of the channels as the quantised layers give them, and of the exact ones with these: (C, C) each."""
    own, shared = torch.zeros(()), torch.zeros(())
    middle = _means(maps.integers).float()[:, None]
    exact_middle, numbers = _means(maps.exact).float()[:, None], 0
    for exact, integers in zip(maps.exact, maps.integers, strict=True):
        values = (integers.transpose(0, 1).flatten(1) - middle) * maps.range.scale
        own, numbers = own + values @ values.T, numbers + values.shape[1]
        shared = shared + (exact.transpose(0, 1).flatten(1) - exact_middle) @ values.T
    return own / numbers, shared / numbers


def _range(parts: Sequence[Tensor], name: str) -> Range:
    """The range with the least squared rounding error; it includes 0, and starts there if no value is negative.

    Raises:
        ParityError: all values are 0, or some are not finite.
    """
    low = min(0.0, *(float(part.min()) for part in parts), 0.0)
    high = max(0.0, *(float(part.max()) for part in parts), 0.0)
    if not 0 < high - low < np.inf:
        raise ParityError(f"{name} of the backbone cannot be quantised: it is dead. Export without --reduced")
    step = max(1, sum(part.numel() for part in parts) // SAMPLE) | 1  # odd, so that it does not keep to some columns
    values = torch.cat([part.flatten()[::step] for part in parts])
    tried = [
        Range(float(above * high - below * low) / LEVELS, round(-below * low / (above * high - below * low) * LEVELS))
        for above in SHRINKAGE
        for below in (SHRINKAGE if low < 0 else [1.0])
        if above * high > below * low
    ]
    return min(tried, key=lambda one: float((one.numbers(one.integers(values)) - values).square().mean()))
