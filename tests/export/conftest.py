import hashlib
from collections.abc import Iterator
from unittest.mock import patch

import pytest

import export.pipeline as pipeline
from export.graphs import GraphPlan, export_graph
from tests.train_fixtures import trained_run

__all__ = ["exported_once", "trained_run"]


@pytest.fixture(scope="session", autouse=True)
def exported_once() -> Iterator[None]:
    """Export a network with the same weights to a graph once a session: it takes seconds, and gives the same bytes."""
    made: dict[tuple[str, str], bytes] = {}

    def once(plan: GraphPlan) -> bytes:
        weights = hashlib.sha256()
        for name, value in plan.module.state_dict().items():
            weights.update(name.encode() + value.detach().contiguous().numpy().tobytes())
        key = (plan.name, weights.hexdigest())
        if key not in made:
            made[key] = export_graph(plan)
        return made[key]

    with patch.object(pipeline, "export_graph", once):
        yield
