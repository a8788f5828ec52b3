"""The six graphs of untrained members on the real backbone: names, axes, values, and agreement with torch."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.graphs import GraphPlan, export_graph
from export.members.backbone import features_of
from export.members.baseline import BaselineExport
from export.members.cells import CellsExport
from export.members.experts import ExpertsExport
from export.members.imagenet import ImageNetExport
from export.parity import BATCH_SIZES, ParityError, check_parity
from infer.bundle.load import REFERENCE, load_bundle
from tests.bundles import GRAPHS, scan_section
from tests.synthetic import draw_cell
from train.core.onnx_graph import OPSET
from train.members.baseline import Baseline, BaselineDimensions
from train.members.cells.clustering import CellClasses
from train.members.cells.network import CellDimensions, CellNetwork
from train.members.embedding import load_embedding
from train.members.experts import Committee, Experts, ExpertsDimensions
from train.members.imagenet import ImageNetDimensions, ImageNetNetwork, numbers

UNBOUNDED = frozenset({"features", "embedding", "contribution", "within", "outside"})
ON_THE_BACKBONE = ("scan", "moe", "imagenet")
SMALL = set(GRAPHS) - {"backbone.onnx"}  # that one takes seconds
Exported = tuple[list[GraphPlan], dict[str, bytes], dict[str, dict[str, Tensor]]]


@pytest.fixture(scope="module")
def exported() -> Exported:
    """Plans, graphs, and inputs: 64 synthetic cells with clinical values."""
    torch.manual_seed(0)
    clinical = torch.stack([torch.arange(64) % 2, 4 + torch.arange(64.0), 20 + torch.arange(64.0)], dim=1)
    images = torch.from_numpy(np.stack([draw_cell(n % 4, np.random.default_rng(n), 112) for n in range(64)]))
    features = features_of(images)
    baseline = Baseline(BaselineDimensions(log_count=True))
    baseline.scale.fit(clinical)
    section = scan_section(load_bundle(REFERENCE).manifest)
    cells = CellClasses(cell_network(features), np.array(section.class_fusion))
    members = (
        BaselineExport(baseline.eval()),
        CellsExport(cells, section.naive_bayes, {}),
        ExpertsExport(committee(features, clinical), {}),
        ImageNetExport(imagenet_network(features), numbers(), features.double().numpy()),
    )
    for member in members:
        alone = [plan.name for plan in member.plans]
        assert alone.count("backbone.onnx") == (member.name in ON_THE_BACKBONE)
        assert member.inputs(images, clinical, features).keys() == set(alone)
    assert frozenset[str]().union(*(member.unbounded for member in members)) == UNBOUNDED
    plans = list({plan.name: plan for member in members for plan in member.plans}.values())
    assert tuple(plan.name for plan in plans) == GRAPHS
    inputs = {file: of for member in members for file, of in member.inputs(images, clinical, features).items()}
    return plans, {plan.name: export_graph(plan) for plan in plans}, inputs


def cell_network(features: Tensor) -> CellNetwork:
    """A random projection of features around their mean, with a spread near one, and random classes."""
    network = CellNetwork(CellDimensions(components=50, clusters=20))
    weights = np.random.default_rng(0).normal(size=(50, 1280)) / 10
    network.set_projection(weights, -weights @ features.double().mean(dim=0).numpy())
    nn.init.normal_(network.head.weight, std=0.2)
    return network.eval()


def committee(features: Tensor, clinical: Tensor) -> Committee:
    """Two mixtures on the scales of these patients, with weights large enough that patients differ."""
    torch.manual_seed(69)  # chosen as below
    found = Committee(ExpertsDimensions(mixtures=2))
    for one in found.each:
        assert isinstance(one, Experts)
        one.fit_scales(features, clinical)
        for layer in one.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.1 if layer.in_features == 1280 else 1.0)
    return found.eval()


def imagenet_network(features: Tensor) -> ImageNetNetwork:
    """A random last layer, whose contributions are 0 in the mean, and a gate on both experts."""
    network = ImageNetNetwork(ImageNetDimensions())
    # With this seed each altered parameter changes even the first picture by more than parity allows.
    torch.manual_seed(113)
    with torch.no_grad():
        network.pictures.linear.weight.copy_(torch.randn(1, 1280) / 4)
        network.pictures.linear.bias.copy_(-(features @ network.pictures.linear.weight[0]).mean())
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
    "backbone.onnx": {"images": (112, 112, 3)},
    "scan.onnx": {"features": (1280,)},
    "moe_head.onnx": {"features": (1280,), "clinical": (3,)},
    "imagenet_pictures.onnx": {"features": (1280,)},
    "imagenet_head.onnx": {"contribution": (), "clinical": (3,)},
    "imagenet_distance.onnx": {"features": (1280,)},
}
HEADS = ("moe_head.onnx", "imagenet_head.onnx")
GATED: dict[str, tuple[int, ...]] = dict.fromkeys(
    ("probability", "image_probability", "clinical_probability", "gate"), ()
)
OUTPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "baseline.onnx": {"probability": ()},
    "backbone.onnx": {"features": (1280,)},
    "scan.onnx": {"probabilities": (20,), "embedding": (50,)},
    "moe_head.onnx": GATED,
    "imagenet_pictures.onnx": {"contribution": ()},
    "imagenet_head.onnx": GATED,
    "imagenet_distance.onnx": {"within": (), "outside": ()},
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
    pictures, others = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    assert kinds == {key: pictures if key == "images" else others for key in INPUTS[name]}
    # In double precision a probability near 1 keeps the digits of its odds.
    of_patients = onnx.TensorProto.DOUBLE if name in HEADS else others
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {of_patients}


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


def test_the_backbone_sees_the_whole_crop_at_twice_its_size(exported: Exported) -> None:
    """Resized and normalised here, step by step, and then through the network with its published weights."""
    images = exported[2]["backbone.onnx"]["images"][:8]
    pixels = (images.permute(0, 3, 1, 2).double() - 127) / 128
    with torch.inference_mode():
        large = functional.interpolate(pixels, (224, 224), mode="bilinear", align_corners=False).float()
        expected = load_embedding().features(large).numpy()
    session = onnxruntime.InferenceSession(exported[1]["backbone.onnx"], providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    assert found.shape == (8, 1280)
    assert np.ptp(expected, axis=0).max() > 0.1 * expected.max()  # the pictures differ
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(expected.max()))
    np.testing.assert_allclose(exported[2]["scan.onnx"]["features"][:8], expected, rtol=0, atol=1e-4 * expected.max())


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
        ("backbone.onnx", "embedding.blocks.14.layers.1.norm.running_mean", ["features"]),
        ("scan.onnx", "projection.bias", ["probabilities", "embedding"]),
        ("scan.onnx", "head.bias", ["probabilities"]),
        ("moe_head.onnx", "head.each.1.clinical_expert.2.bias", ["probability", "clinical_probability"]),
        ("moe_head.onnx", "head.each.1.image_map.bias", ["probability", "image_probability"]),
        ("moe_head.onnx", "head.each.1.gate.1.bias", ["probability", "gate"]),
        ("imagenet_pictures.onnx", "linear.bias", ["contribution"]),
        ("imagenet_head.onnx", "head.gate", ["probability", "gate"]),
        ("imagenet_head.onnx", "head.log_prior", ["probability", "clinical_probability", "gate"]),
    ],
)
@pytest.mark.parametrize("by", [1e-3, float("nan")])
def test_altered_weights_are_found(
    exported: Exported, name: str, parameter: str, outputs: list[str], by: float
) -> None:
    plans = [plan for plan in altered(exported, name, parameter, by) if plan.name in {name, *SMALL}]
    with pytest.raises(ParityError) as caught:
        check_parity(plans, exported[1], exported[2], UNBOUNDED)
    lines = str(caught.value).splitlines()[1:]
    found = [line.partition(":")[0].strip() for line in lines]
    expected = [f"{name} {output}, batch {size}" for size in BATCH_SIZES for output in outputs]
    assert found == expected


@pytest.mark.parametrize("which", [0, 24, -1])
def test_altered_convolutions_are_found(exported: Exported, which: int) -> None:
    """The first, one in the middle and the last of the backbone's 49."""
    plans = list(exported[0])
    index = [plan.name for plan in plans].index("backbone.onnx")
    backbone: nn.Module = copy.deepcopy(plans[index].module)
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 49
    with torch.no_grad():
        convolutions[which].weight.add_(1e-3)
    plans[index] = GraphPlan("backbone.onnx", backbone, plans[index].inputs, plans[index].outputs)
    with pytest.raises(ParityError, match=r"backbone\.onnx features, batch 1: .*\n.*backbone\.onnx features, batch 2"):
        check_parity(plans, exported[1], exported[2], UNBOUNDED)


def test_all_failures_are_told_at_once(exported: Exported) -> None:
    plans = altered(exported, "baseline.onnx", "network.classifier.4.bias", 1e-3)
    (head,) = [
        plan
        for plan in altered(exported, "moe_head.onnx", "head.each.0.gate.1.bias", 1e-1)
        if plan.name == "moe_head.onnx"
    ]
    plans = [head if plan.name == "moe_head.onnx" else plan for plan in plans if plan.name in SMALL]
    with pytest.raises(ParityError, match=r"(?s)baseline\.onnx probability, batch 64.*moe_head\.onnx gate, batch 64"):
        check_parity(plans, exported[1], exported[2], UNBOUNDED)
