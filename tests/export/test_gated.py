"""The ImageNet member's head as a graph: what the gate weighs, and that an open one is exactly 1."""

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch

from export.graphs import GraphPlan, export_graph
from export.members.gated import HeadGraph
from export.members.member import example_clinical
from infer.members.gated import OUTPUTS
from train.members.gating import OPEN
from train.members.imagenet import ImageNetHead

PATIENTS = 500
CALIBRATION = {"slope": [1.5, 0.75], "intercept": [0.25, -0.5]}


def outputs(gate: list[float]) -> dict[str, npt.NDArray[np.float64]]:
    """What the graph of a head with this gate says of drawn patients, by output."""
    head = ImageNetHead()
    values = {"variance": [[1.0, 90.0, 200.0]] * 2, "mean": [[0.4, 5.0, 58.0], [0.5, 12.0, 70.0]], **CALIBRATION}
    for name, value in (values | {"gate": gate}).items():
        head.get_buffer(name).copy_(torch.tensor(value))
    inputs = {"contribution": torch.zeros(2), "clinical": example_clinical()}
    graph = export_graph(GraphPlan("imagenet_head.onnx", HeadGraph(head.eval()), inputs, OUTPUTS))
    rng = np.random.default_rng(0)
    clinical = [rng.integers(0, 2, PATIENTS), np.exp(rng.normal(2, 1, PATIENTS)), rng.normal(60, 15, PATIENTS)]
    asked = {"contribution": rng.normal(0, 6, PATIENTS), "clinical": np.stack(clinical, 1)}
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = session.run(None, {name: of.astype(np.float32) for name, of in asked.items()})
    return dict(zip((one.name for one in session.get_outputs()), found, strict=True))


@pytest.fixture(scope="module")
def weighed() -> dict[str, npt.NDArray[np.float64]]:
    return outputs([0.2, 0.1, -0.2, 0.5, 0.2, -0.5])


def test_the_probability_is_what_the_gate_makes_of_both_experts(weighed: dict[str, npt.NDArray[np.float64]]) -> None:
    assert list(weighed) == list(OUTPUTS)
    probability, pictures, clinical, gate = weighed.values()
    assert 0 < gate.min() < 0.3 < 0.7 < gate.max() < 1
    assert np.ptp(pictures) > 0.9
    assert np.ptp(clinical) > 0.5
    np.testing.assert_allclose(probability, gate * pictures + (1 - gate) * clinical, rtol=1e-12)


def test_where_the_image_expert_stands_alone_the_gate_is_exactly_1() -> None:
    probability, pictures, clinical, gate = outputs([OPEN, 0, 0, 0, 0, 0]).values()
    assert (gate == 1).all()
    assert (probability == pictures).all()
    assert (pictures != clinical).all()
