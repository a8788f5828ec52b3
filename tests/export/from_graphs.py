"""Rebuilds the torch networks of a bundle from its graphs' weights, as an independent way to score patients.

Export folds batch norm into the preceding convolution. Here each batch norm is replaced by the folded bias, so the
rebuilt network computes the same as the trained one.
"""

import re
from collections.abc import Iterator

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from infer.bundle.load import Bundle
from infer.members.scan import CLUSTERS
from train.members.baseline import Baseline, BaselineDimensions
from train.members.embedding import load_embedding
from train.members.imagenet import ImageNetDimensions, ImageNetNetwork
from train.members.mixture_network import Committee, Encoders, Heads, MixtureOfExperts, MoeDimensions
from train.members.scan.network import ScanDimensions, ScanNetwork


def rebuild(bundle: Bundle) -> tuple[Baseline, ScanNetwork, Encoders, Heads, ImageNetNetwork]:
    """The bundle's networks in torch, in evaluation mode."""
    models = {name: onnx.load_from_string(data) for name, data in bundle.graphs.items()}
    log_count = any(node.op_type == "Log" for node in models["moe_head.onnx"].graph.node)
    dimensions = MoeDimensions(log_count=log_count)
    baseline = Baseline(BaselineDimensions(log_count=log_count))
    scan = ScanNetwork(ScanDimensions(clusters=CLUSTERS))
    maps = models["moe_head.onnx"].graph.input[0].type.tensor_type.shape.dim[1].dim_value
    mixtures = [MixtureOfExperts(dimensions) for _ in range(maps // dimensions.channels[-1])]
    committee = Committee(mixtures)
    _fill(baseline, models["baseline.onnx"], prefix="network.")
    _fill(scan, models["scan.onnx"], prefix="")
    _fill(committee.encoder, models["moe_encoder.onnx"], prefix="")
    _fill(committee.head, models["moe_head.onnx"], prefix="head.")
    imagenet = ImageNetNetwork(ImageNetDimensions(112))
    imagenet.pictures.embedding.load_state_dict(load_embedding().state_dict())  # the published weights, not the graph's
    _fill(imagenet.pictures.linear, models["imagenet_encoder.onnx"], prefix="linear.")
    _fill(imagenet.head, models["imagenet_head.onnx"], prefix="")
    committee.eval()
    return baseline.eval(), scan.eval(), committee.encoder, committee.head, imagenet.eval()


def stored_weights(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Tensors by their names in the network; those stored in float16 are converted to float32."""
    arrays = {one.name.removesuffix(".short"): numpy_helper.to_array(one) for one in model.graph.initializer}
    return {
        name: torch.from_numpy(array.astype(np.float32) if array.dtype == np.float16 else array.copy())
        for name, array in arrays.items()
    }


@torch.no_grad()
def _fill(network: nn.Module, model: onnx.ModelProto, prefix: str) -> None:
    tensors = stored_weights(model)
    state = network.state_dict()
    filled = set()
    for name in state:
        stored = prefix + name
        if ".scale." in name and stored not in tensors:  # equal in all mixtures: the exporter keeps only the first
            stored = re.sub(r"each\.\d+\.", "each.0.", stored)
        if stored in tensors:
            state[name].copy_(tensors[stored])
            filled.add(name)
    for weight_name, bias in _convolution_biases(model, tensors):
        batch_norm = _batch_norm_after(weight_name.removeprefix(prefix))
        if f"{batch_norm}.running_var" not in state:
            continue  # a convolution that has its own bias
        variance = state[f"{batch_norm}.running_var"].fill_(1.0)
        state[f"{batch_norm}.running_mean"].zero_()
        state[f"{batch_norm}.weight"].copy_(torch.sqrt(variance + 1e-5))
        state[f"{batch_norm}.bias"].copy_(bias)
        filled |= {name for name in state if name.startswith(batch_norm + ".")}
    missing = set(state) - filled
    if missing:
        raise ValueError(f"the graph has no weights for {sorted(missing)}")


def _convolution_biases(model: onnx.ModelProto, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            yield node.input[1], tensors[node.input[2]]


def _batch_norm_after(convolution_weight: str) -> str:
    """Batch norm of a convolution, by the names in torchvision's basic block (conv1 -> bn1) and in our Sequentials."""
    module = convolution_weight.removesuffix(".weight")
    parent, _, last = module.rpartition(".")
    following = str(int(last) + 1) if last.isdigit() else last.replace("conv", "bn")
    return f"{parent}.{following}"
