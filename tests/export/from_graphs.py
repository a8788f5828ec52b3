"""Rebuilds the torch networks of a bundle from its graphs' weights, as an independent way to score patients."""

import re
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from infer.bundle.load import Bundle
from infer.members.scan import CLUSTERS
from train.members.baseline import Baseline, BaselineDimensions
from train.members.cells.network import CellDimensions, CellNetwork
from train.members.embedding import FrozenBackbone, load_backbone
from train.members.experts import Committee, ExpertsDimensions
from train.members.imagenet import MAGNIFICATION, ImageNetDimensions, ImageNetNetwork


@dataclass(frozen=True)
class Rebuilt:
    """A bundle's networks in torch, in evaluation mode."""

    baseline: Baseline
    backbone: FrozenBackbone
    cells: CellNetwork
    experts: Committee
    imagenet: ImageNetNetwork


def rebuild(bundle: Bundle) -> Rebuilt:
    """The networks; the backbone has the published weights, not the graph's."""
    graphs = ("baseline.onnx", "scan.onnx", "moe_head.onnx", "imagenet_pictures.onnx", "imagenet_head.onnx")
    models = {name: onnx.load_from_string(bundle.graphs[name]) for name in graphs}
    log_count = any(node.op_type == "Log" for node in models["baseline.onnx"].graph.node)
    baseline = Baseline(BaselineDimensions(log_count=log_count))
    components = len(stored_weights(models["scan.onnx"])["projection.bias"])
    cells = CellNetwork(CellDimensions(components, CLUSTERS))
    mixtures = sum(name.endswith("gate_map.weight") for name in stored_weights(models["moe_head.onnx"]))
    experts = Committee(ExpertsDimensions(mixtures))
    imagenet = ImageNetNetwork(ImageNetDimensions())
    _fill(baseline, models["baseline.onnx"], prefix="network.")
    _fill(cells, models["scan.onnx"], prefix="")
    _fill(experts, models["moe_head.onnx"], prefix="head.")
    _fill(imagenet.pictures, models["imagenet_pictures.onnx"], prefix="")
    _fill(imagenet.head, models["imagenet_head.onnx"], prefix="head.")
    backbone = load_backbone(MAGNIFICATION)
    return Rebuilt(baseline.eval(), backbone.eval(), cells.eval(), experts.eval(), imagenet.eval())


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
    missing = []
    for name in state:
        # What is equal in all mixtures, such as the clinical scale, the exporter keeps only of the first.
        stored = [one for one in (prefix + name, re.sub(r"each\.\d+\.", "each.0.", prefix + name)) if one in tensors]
        if stored:
            state[name].copy_(tensors[stored[0]])
        else:
            missing.append(name)
    if missing:
        raise ValueError(f"the graph has no weights for {sorted(missing)}")
