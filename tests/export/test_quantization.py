"""The int8 backbone compared with a slow reference that sums products in 64-bit integers."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import export.precision.int8 as int8
import train.members.embedding as embedding
from export.parity import ParityError
from export.precision.int8 import quantize
from export.precision.weights import LARGEST, LARGEST_PAIR, pointwise, refitted
from infer.engine.sessions import CPU, Device, Graph
from train.members.embedding import Convolution, FrozenBackbone, Magnification, Stage

STAGES = (Stage(1, 3, 1, 8, 1), Stage(3, 3, 2, 10, 2), Stage(2, 5, 2, 12, 1))
SIZE = 40  # pixels, so that the strides of 2 need padding on one side only
Array = npt.NDArray[Any]


def pictures(number: int, seed: int) -> Tensor:
    """Smooth pictures, as cells are."""
    random = np.random.RandomState(seed)
    small = torch.from_numpy(random.rand(number, 3, 8, 8).astype(np.float32))
    large = nn.functional.interpolate(small, (112, 112), mode="bilinear")
    return (255 * large).permute(0, 2, 3, 1).round().to(torch.uint8).contiguous()


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "STAGES", STAGES)
        patch.setattr(embedding, "FEATURES", 20)
        patch.setattr(int8, "FLOAT_BLOCKS", 1)
        yield


@pytest.fixture(scope="module")
def network() -> FrozenBackbone:
    """Weights and batch norms as after some training: every layer says something."""
    torch.manual_seed(1)
    network = FrozenBackbone(Magnification(112, SIZE)).eval()
    with torch.no_grad():
        maps = network.shown(pictures(8, seed=2))
        for layer in [module for module in network.modules() if isinstance(module, Convolution)]:
            nn.init.normal_(layer.convolution.weight)
            nn.init.uniform_(layer.norm.weight, 0.5, 1.5)
            nn.init.uniform_(layer.norm.bias, 0.0, 0.6)
            sums = layer.convolution(nn.functional.pad(maps, layer.padding(*maps.shape[2:])))
            layer.norm.running_mean, layer.norm.running_var = sums.mean((0, 2, 3)), sums.var((0, 2, 3))
            maps = layer(maps)
    return network


@pytest.fixture(scope="module")
def data(network: FrozenBackbone) -> bytes:
    return quantize(network, pictures(32, seed=3))


def features_of(data: bytes, images: Tensor) -> npt.NDArray[np.float32]:
    return Graph("int8", data, Device(CPU, "test"), 1).run(images=images.numpy())["features"]


def exact_features(network: FrozenBackbone, images: Tensor) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        found: npt.NDArray[np.float32] = network(images).numpy()
    return found


def test_the_features_are_near_those_of_float32(network: FrozenBackbone, data: bytes) -> None:
    images = pictures(32, seed=4)
    exact, found = exact_features(network, images), features_of(data, images)
    assert found.shape == exact.shape
    assert np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)


def test_the_graph_is_what_its_integers_say(data: bytes) -> None:
    """After the float32 part: sums in 64-bit integers, one rounding per layer. This processor must not saturate."""
    model = onnx.load_from_string(data)
    nodes = list(model.graph.node)
    first = [node.op_type for node in nodes].index("QuantizeLinear")
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    images = pictures(4, seed=5)
    values = stored | part(model, nodes[:first], "maps", TensorProto.FLOAT).run(images=images.numpy())
    for node in nodes[first:-2]:
        given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        values[node.output[0]] = SLOW[node.op_type](*(values[name] for name in node.input), **given)
    found = part(model, nodes[:-2], "head", TensorProto.UINT8).run(images=images.numpy())["head"]
    away = np.abs(found.astype(np.int64) - values["head"])
    assert len(np.unique(found)) > 150
    assert away.max() <= 1  # float32 factors may round a half the other way
    assert away.mean() < 1e-3
    widened = (found.astype(np.float32) - stored["head.zero"]) * stored["head.scale"]
    assert features_of(data, images) == pytest.approx(widened.mean((2, 3)), abs=1e-5)


def part(model: onnx.ModelProto, nodes: list[onnx.NodeProto], output: str, kind: int) -> Graph:
    """The first nodes of a graph."""
    outputs = [helper.make_tensor_value_info(output, kind, None)]
    graph = helper.make_graph(nodes, "part", model.graph.input, outputs, model.graph.initializer)
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return Graph("part", made.SerializeToString(), Device(CPU, "test"), 1)


def quantised(values: Array, scale: Array, zero: Array) -> Array:
    found: Array = np.clip(np.rint(values / scale) + zero, 0, 255).astype(np.int64)
    return found


def convolved(
    x: Array, x_scale: Array, x_zero: Array, weight: Array, weight_scale: Array, weight_zero: Array,
    scale: Array, zero: Array, bias: Array, *, pads: list[int], strides: list[int], group: int,
) -> Array:  # fmt: skip
    assert not weight_zero.any()
    top, left, bottom, right = pads
    centred = np.pad(x.astype(np.int64) - x_zero, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(centred, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1]]
    if group > 1:
        sums = np.einsum("nchwij,cij->nchw", windows, weight[:, 0].astype(np.int64))
    else:
        sums = np.einsum("nchwij,ocij->nohw", windows, weight.astype(np.int64))
    factor = (x_scale * weight_scale / scale)[:, None, None]
    return quantised((sums + bias[:, None, None]).astype(np.float32) * factor, np.ones((), np.float32), zero)


def added(a: Array, a_scale: Array, a_zero: Array, b: Array, b_scale: Array, b_zero: Array, *to: Array) -> Array:
    return quantised(a_scale * (a.astype(np.int64) - a_zero) + b_scale * (b.astype(np.int64) - b_zero), *to)


SLOW: dict[str, Callable[..., Array]] = {
    "QuantizeLinear": quantised, "QLinearConv": convolved, "QLinearAdd": added
}  # fmt: skip


def test_all_convolutions_after_the_first_block_are_in_integers(data: bytes) -> None:
    operators = [node.op_type for node in onnx.load_from_string(data).graph.node]
    assert (operators.count("QLinearConv"), operators.count("QLinearAdd")) == (3 * 3 + 1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_the_products_of_neighbours_fit_into_16_bits(seed: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(6, 9, 1, 1) + seed  # mostly with the same sign, later
    integers, scale = pointwise(weight, torch.cov(torch.randn(9, 50)))
    flat = integers.flatten(1)
    assert flat.abs().max() <= LARGEST
    for side in (flat, -flat):
        assert (side.clamp_min(0)[:, 1:] + side.clamp_min(0)[:, :-1]).max() <= LARGEST_PAIR
    assert 255 * LARGEST_PAIR < 2**15
    assert (integers * scale[:, None, None, None] - weight).abs().max() < 0.1 * weight.abs().max()


def test_errors_make_up_for_each_other() -> None:
    torch.manual_seed(0)
    values = torch.randn(12, 3) @ torch.randn(3, 400) + 0.1 * torch.randn(12, 400)  # correlated, as channels are
    weight = torch.randn(8, 12, 1, 1)
    errors = []
    for covariance in (torch.cov(values), torch.eye(12)):
        integers, scale = pointwise(weight, covariance)
        errors.append(float(((integers * scale[:, None, None, None] - weight).flatten(1) @ values).square().mean()))
    assert errors[0] < errors[1] / 2


def test_weights_are_fitted_to_rounded_inputs() -> None:
    torch.manual_seed(0)
    exact = torch.randn(12, 3) @ torch.randn(3, 400)
    rounded = exact.round()
    weight = torch.randn(8, 12, 1, 1)
    both = torch.cov(torch.cat([exact, rounded]))
    fitted = refitted(weight, both[12:, 12:], both[:12, 12:])
    wanted = weight.flatten(1) @ exact
    errors = [float((one.flatten(1) @ rounded - wanted).square().mean()) for one in (fitted, weight)]
    assert errors[0] < 0.8 * errors[1]
    same = torch.cov(exact)
    assert refitted(weight, same, same) == pytest.approx(weight, abs=1e-5)


def test_the_biases_correct_the_mean_error(network: FrozenBackbone, data: bytes) -> None:
    """A patient's features are means over pictures. Without the correction of the last layer their error is larger."""
    images = pictures(32, seed=4)
    exact = exact_features(network, images).mean(0)
    model = onnx.load_from_string(data)
    stored = {one.name: one for one in model.graph.initializer}
    folded = nn.utils.fusion.fuse_conv_bn_eval(network.embedding.head.convolution, network.embedding.head.norm)
    before = next(node for node in model.graph.node if node.output[0] == "head").input
    unit = numpy_helper.to_array(stored["head.weight_scale"]) * numpy_helper.to_array(stored[before[1]])
    plain = np.rint(folded.get_parameter("bias").detach().numpy() / unit).astype(np.int32)
    stored["head.bias"].CopyFrom(numpy_helper.from_array(plain, "head.bias"))
    corrected = np.linalg.norm(features_of(data, images).mean(0) - exact)
    assert corrected < np.linalg.norm(features_of(model.SerializeToString(), images).mean(0) - exact)


def test_the_result_depends_on_neither_batch_nor_run(network: FrozenBackbone, data: bytes) -> None:
    images = pictures(5, seed=6)
    one_by_one = np.concatenate([features_of(data, images[index : index + 1]) for index in range(5)])
    assert features_of(data, images) == pytest.approx(one_by_one, abs=1e-6)
    assert quantize(network, pictures(32, seed=3)) == data


def test_channels_that_are_constant_stay_so(network: FrozenBackbone) -> None:
    """The network has some: their weights are 0, or negligible compared with their bias."""
    odd = copy.deepcopy(network)
    norm = odd.embedding.head.norm
    with torch.no_grad():
        norm.weight[0], norm.bias[0] = 0.0, 0.5
        norm.weight[1], norm.bias[1] = 1e-12, 5.0
    found = features_of(quantize(odd, pictures(8, seed=3)), pictures(4, seed=4))
    assert found[:, 0] == pytest.approx(0.5, abs=0.02)
    assert found[:, 1] == pytest.approx(5.0, abs=0.02)


def test_a_layer_that_says_nothing_is_refused(network: FrozenBackbone) -> None:
    dead = copy.deepcopy(network)
    norm = dead.embedding.head.norm
    with torch.no_grad():
        norm.bias.fill_(-1000.0)
    with pytest.raises(ParityError, match="head of the backbone cannot be quantised: it is dead"):
        quantize(dead, pictures(4, seed=3))


def test_weights_that_are_no_numbers_are_refused(network: FrozenBackbone) -> None:
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken.embedding.head.norm.bias[0] = float("nan")
    with pytest.raises(ParityError, match="head of the backbone cannot be quantised"):
        quantize(broken, pictures(4, seed=3))
