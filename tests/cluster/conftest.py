"""A real Ray cluster of three nodes on this machine, one processor each, which asks for a token."""

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.infer.conftest import cohort, many, pristine, whole

__all__ = ["cluster", "cohort", "many", "pristine", "whole"]  # fixtures: these cohorts are those of the runtime's tests

# Read when Ray is imported.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(**NODE)
        yield made
    finally:
        made.shutdown()
