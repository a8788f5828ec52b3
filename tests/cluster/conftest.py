"""A real Ray cluster of three nodes on this machine, one processor each, which asks for a token."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.infer.runs import MANY_PATIENTS, Outcome, score_on_a_fixed_day
from tests.soak import write_linked_cohort
from tests.synthetic import make_patients, write_cohort

# Read when Ray is imported.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
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


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S001 to S006, 12 to 15 pictures each."""
    folder = tmp_path_factory.mktemp("pristine") / "patients"
    write_cohort(folder, make_patients(6, seed=3, images=(12, 15)), seed=3, labels=False, size=128)
    return folder


@pytest.fixture(scope="session")
def many(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "patients"
    write_linked_cohort(folder, pristine, MANY_PATIENTS)
    return folder


@pytest.fixture(scope="session")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The cohort of many, scored by one process."""
    return score_on_a_fixed_day(many, tmp_path_factory.mktemp("whole") / "out")
