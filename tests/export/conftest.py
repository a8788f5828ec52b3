import hashlib
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from torch import Tensor, nn

import export.pipeline as pipeline
from export.graphs import GraphPlan, export_graph
from export.precision.int8 import quantize
from tests.train_fixtures import trained_run
from train.members.embedding import FrozenBackbone

__all__ = ["exported_once", "trained_run"]


@pytest.fixture(scope="session", autouse=True)
def exported_once() -> Iterator[None]:
    """Cache what the pipeline makes of the same weights for the test session.

    An export takes seconds and a quantisation much longer, and both are deterministic.
    """
    made: dict[tuple[str, str], bytes] = {}

    def once(plan: GraphPlan) -> bytes:
        key = (plan.name, digest(plan.module))
        if key not in made:
            made[key] = export_graph(plan)
        return made[key]

    def quantized_once(network: FrozenBackbone, crops: Tensor) -> bytes:
        key = (digest(network), hashlib.sha256(crops.numpy().tobytes()).hexdigest())
        if key not in made:
            made[key] = quantize(network, crops)
        return made[key]

    with patch.object(pipeline, "export_graph", once), patch.object(pipeline, "quantize", quantized_once):
        yield


def digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights."""
    weights = hashlib.sha256()
    for name, value in network.state_dict().items():
        weights.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return weights.hexdigest()
