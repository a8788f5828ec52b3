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
    """Cache exported graphs by weights for the test session: an export takes seconds and is deterministic."""
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
