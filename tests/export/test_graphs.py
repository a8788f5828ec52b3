"""The six graphs of untrained networks: names, axes, and agreement with torch."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export.graphs import GraphPlan, export_graph
from export.members.baseline import BaselineExport
from export.members.imagenet import ImageNetExport
from export.members.mixture import MixtureExport
from export.members.scan import ScanExport
from export.parity import BATCH_SIZES, ParityError, check_parity
from infer.bundle.load import REFERENCE, load_bundle
from tests.bundles import GRAPHS, scan_section
from tests.synthetic import draw_cell
from train.core.onnx_graph import OPSET
from train.members.baseline import Baseline, BaselineDimensions
from train.members.embedding import load_embedding
from train.members.imagenet import ImageNetDimensions, ImageNetNetwork, numbers
from train.members.mixture_network import Committee, MixtureOfExperts, MoeDimensions
from train.members.scan.network import ScanDimensions, ScanNetwork

UNBOUNDED = frozenset({"embedding", "maps", "contribution"})
Exported = tuple[list[GraphPlan], dict[str, bytes], dict[str, dict[str, Tensor]]]


@pytest.fixture(scope="module")
def exported() -> Exported:
    """Plans, graphs, and inputs: 64 synthetic cells with clinical values."""
    torch.manual_seed(0)
    clinical = torch.stack([torch.arange(64) % 2, 4 + torch.arange(64.0), 20 + torch.arange(64.0)], dim=1)
    baseline, scan = Baseline(BaselineDimensions(log_count=True)), ScanNetwork(ScanDimensions())
    mixtures = [MixtureOfExperts(MoeDimensions(log_count=True)) for _ in range(2)]
    committee = Committee(mixtures)
    imagenet = imagenet_network()
    baseline.scale.fit(clinical)
    for one in mixtures:
        one.head.scale.fit(clinical)
    images = torch.from_numpy(np.stack([draw_cell(n % 4, np.random.default_rng(n), 112) for n in range(64)]))
    with torch.inference_mode():
        committee.encoder.train()(images)  # changes the running statistics from their initial values
    committee.eval()
    section = scan_section(load_bundle(REFERENCE).manifest)
    members = (
        BaselineExport(baseline.eval()),
        ScanExport(scan.eval(), section.class_fusion, section.naive_bayes),
        MixtureExport(committee.encoder, committee.head),
        ImageNetExport(imagenet, numbers()),
    )
    plans = [plan for member in members for plan in member.plans]
    inputs = {file: of for member in members for file, of in member.inputs(images, clinical).items()}
    return plans, {plan.name: export_graph(plan) for plan in plans}, inputs


def imagenet_network() -> ImageNetNetwork:
    """ImageNet weights, with a random last layer."""
    network = ImageNetNetwork(ImageNetDimensions(112))
    network.pictures.embedding.load_state_dict(load_embedding().state_dict())
    # With this seed each altered parameter changes even the first picture by more than parity allows.
    torch.manual_seed(41)
    network.pictures.linear.weight.data = torch.randn(1, 1280) / 4
    network.head.clinical.set(np.array([0.5, 2.0, 0.25, 1.0]), -0.5)
    values = {
        "log_prior": [-1.2, -0.4],
        "mean": [[0.5, 6, 50], [0.5, 20, 70]],
        "variance": [[0.2, 4, 300], [0.2, 400, 150]],
        "floor": 5.9,
        "slope": [0.9, 0.4],
        "intercept": [0.1, -0.2],
        "gate": [0.1, 0.2, -1, 0.3, 0.2, -0.3],
    }
    for name, value in values.items():
        network.head.get_buffer(name).copy_(torch.tensor(value))
    return network.eval()


def shapes(values: Iterator[onnx.ValueInfoProto]) -> dict[str, list[int | str]]:
    """Name -> axes, where a dynamic axis is given by its name."""
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
    }


INPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "baseline.onnx": {"images": (112, 112, 3), "clinical": (3,)},
    "scan.onnx": {"images": (112, 112, 3)},
    "moe_encoder.onnx": {"images": (112, 112, 3)},
    "moe_head.onnx": {"bags": (512, 3, 3), "clinical": (3,)},
    "imagenet_encoder.onnx": {"images": (112, 112, 3)},
    "imagenet_head.onnx": {"contribution": (), "clinical": (3,)},
}
OUTPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "baseline.onnx": {"probability": ()},
    "scan.onnx": {"probabilities": (20,), "embedding": (256,)},
    "moe_encoder.onnx": {"maps": (512, 3, 3)},
    "moe_head.onnx": {"probability": (), "image_probability": (), "clinical_probability": (), "gate": ()},
    "imagenet_encoder.onnx": {"contribution": ()},
    "imagenet_head.onnx": {"probability": ()},
}


@pytest.mark.parametrize("name", GRAPHS)
def test_names_axes_and_opset(exported: Exported, name: str) -> None:
    model = onnx.load_from_string(exported[1][name])
    for values, wanted in ((model.graph.input, INPUTS[name]), (model.graph.output, OUTPUTS[name])):
        found = shapes(iter(values))
        assert {key: tuple(axes[1:]) for key, axes in found.items()} == wanted
        assert all(isinstance(axes[0], str) for axes in found.values())  # the batch axis is dynamic
    assert [opset.version for opset in model.opset_import if not opset.domain] == [20]
    assert OPSET == 20
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    assert kinds.get("images", onnx.TensorProto.UINT8) == onnx.TensorProto.UINT8
    assert kinds.get("clinical", onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_says_nothing_of_the_machine_that_made_it(exported: Exported, name: str) -> None:
    for told in (b".py", b"File ", b"stack_trace", str(Path.cwd()).encode()):
        assert told not in exported[1][name]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("size", [1, 3, 64])
def test_rows_do_not_depend_on_their_batch(exported: Exported, name: str, size: int) -> None:
    session = onnxruntime.InferenceSession(exported[1][name], providers=["CPUExecutionProvider"])
    inputs = {key: values.numpy() for key, values in exported[2][name].items()}
    whole = session.run(None, inputs)
    part = session.run(None, {key: values[:size] for key, values in inputs.items()})
    for all_rows, rows in zip(whole, part, strict=True):
        assert len(rows) == size
        np.testing.assert_allclose(rows, all_rows[:size], rtol=0, atol=1e-5 * max(1.0, float(np.abs(all_rows).max())))


def test_parity_holds_and_says_how_well(exported: Exported) -> None:
    assert BATCH_SIZES == (1, 2, 7, 64)
    largest = check_parity(*exported, UNBOUNDED)
    assert 0 < largest < 1e-5


def altered(exported: Exported, name: str, parameter: str, by: float) -> list[GraphPlan]:
    """The plans, with one parameter of one network changed after export."""
    plans = list(exported[0])
    index = [plan.name for plan in plans].index(name)
    module: nn.Module = copy.deepcopy(plans[index].module)
    with torch.no_grad():
        module.state_dict()[parameter].flatten()[-1:].add_(by)
    plans[index] = GraphPlan(name, module, plans[index].inputs, plans[index].outputs)
    return plans


@pytest.mark.parametrize(
    ("name", "parameter", "outputs"),
    [
        ("baseline.onnx", "network.classifier.4.bias", ["probability"]),
        ("scan.onnx", "heads.0.bias", ["probabilities"]),
        ("moe_head.onnx", "head.each.1.clinical_expert.2.bias", ["probability", "clinical_probability"]),
        ("imagenet_encoder.onnx", "linear.bias", ["contribution"]),
        ("imagenet_head.onnx", "gate", ["probability"]),
        ("imagenet_head.onnx", "log_prior", ["probability"]),
    ],
)
@pytest.mark.parametrize("by", [1e-3, float("nan")])
def test_altered_weights_are_found(
    exported: Exported, name: str, parameter: str, outputs: list[str], by: float
) -> None:
    with pytest.raises(ParityError) as caught:
        check_parity(altered(exported, name, parameter, by), exported[1], exported[2], UNBOUNDED)
    lines = str(caught.value).splitlines()[1:]
    found = [line.partition(":")[0].strip() for line in lines]
    expected = [f"{name} {output}, batch {size}" for size in BATCH_SIZES for output in outputs]
    assert found == expected


def test_altered_convolutions_are_found(exported: Exported) -> None:
    plans = list(exported[0])
    encoder: nn.Module = copy.deepcopy(plans[2].module)
    with torch.no_grad():
        next(encoder.parameters()).add_(1e-2)
    plans[2] = GraphPlan(plans[2].name, encoder, plans[2].inputs, plans[2].outputs)
    with pytest.raises(ParityError, match=r"moe_encoder\.onnx maps, batch 1: .*\n.*moe_encoder\.onnx maps, batch 2"):
        check_parity(plans, exported[1], exported[2], UNBOUNDED)


def test_all_failures_are_told_at_once(exported: Exported) -> None:
    plans = altered(exported, "baseline.onnx", "network.classifier.4.bias", 1e-3)
    plans[3] = altered(exported, "moe_head.onnx", "head.each.0.gate.1.bias", 1e-1)[3]
    with pytest.raises(ParityError, match=r"(?s)baseline\.onnx probability, batch 64.*moe_head\.onnx gate, batch 64"):
        check_parity(plans, exported[1], exported[2], UNBOUNDED)
