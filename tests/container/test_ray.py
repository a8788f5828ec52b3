"""--ray in containers: as the nodes of a cluster, each as locked up as it can be, on a network without a way out."""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.test_container import (
    DATE,
    IMAGE,
    MANY,
    RAY_IMAGE,
    docker,
    many,
    new_folder,
    patients,
    score_line,
    wait_for_patients,
)
from tests.infer.runs import csv_bytes

__all__ = ["many", "patients"]  # fixtures
NAMED = f"lympho-test-ray-{os.getpid()}"
HEAD, NODE = f"{NAMED}-head", f"{NAMED}-node"
# What Ray needs besides: a writable /tmp, shared memory, and more memory than the driver alone.
WRITABLE = ("--tmpfs=/tmp", "--shm-size=256m", "--memory=3g")
ONE_CORE = ("--num-cpus=1", f"--object-store-memory={100 << 20}")


def in_ray_image(line: list[str]) -> list[str]:
    return [RAY_IMAGE if word == IMAGE else word for word in line]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return new_folder(tmp_path / "out")


@pytest.fixture(scope="module")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one container of the image without Ray writes."""
    out = new_folder(tmp_path_factory.mktemp("whole") / "out")
    done = docker(*score_line(many, out, *DATE))
    assert done.returncode == 0, done.stderr
    return csv_bytes(out)


@pytest.fixture
def network() -> Iterator[str]:
    assert docker("network", "create", "--internal", NAMED).returncode == 0
    try:
        yield NAMED
    finally:
        docker("rm", "--force", HEAD, NODE)
        docker("network", "rm", NAMED)


def start_node(name: str, network: str, cohort: Path, out: Path, token: str, *ray: str) -> None:
    flags = (f"--network={network}", f"--name={name}", *WRITABLE, "--entrypoint=ray", "--detach")
    settings = ("--env=RAY_AUTH_MODE=token", f"--env=RAY_AUTH_TOKEN={token}", "--env=RAY_USAGE_STATS_ENABLED=0")
    line = [word for word in score_line(cohort, out, flags=(*flags, *settings)) if word != "--network=none"]
    at = line.index(IMAGE)
    done = docker(*line[:at], RAY_IMAGE, "start", "--block", *ONE_CORE, *ray)
    assert done.returncode == 0, done.stderr


def nodes_alive() -> int:
    program = (
        "import logging, ray; ray.init(address='auto', log_to_driver=False, logging_level=logging.ERROR);"
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    done = docker("exec", HEAD, "python3", "-c", program)
    return int(done.stdout) if done.returncode == 0 else 0


def test_two_containers_as_nodes_one_of_them_killed(
    many: Path, whole: dict[str, bytes], out: Path, network: str
) -> None:
    token = secrets.token_hex(32)
    start_node(HEAD, network, many, out, token, "--head", "--include-dashboard=false")
    start_node(NODE, network, many, out, token, f"--address={HEAD}:6379")
    deadline = time.monotonic() + 120
    while nodes_alive() < 2:
        assert time.monotonic() < deadline, docker("logs", HEAD).stderr + docker("logs", NODE).stderr
        time.sleep(1)
    program = ("python3", "-m", "infer", "/data/patients", "/out", "--ray", "auto", "--threads", "1", *DATE)
    with subprocess.Popen(["docker", "exec", HEAD, *program], stderr=subprocess.PIPE, text=True) as process:
        wait_for_patients(process, out, 10)
        docker("kill", NODE)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert csv_bytes(out) == whole
    record = json.loads((out / "run.json").read_text())
    assert sum(node["patients"] for node in record["nodes"]) == MANY
    assert len({node["machine"] for node in record["nodes"]}) == 2
    assert "an actor is lost" in (out / "run.log").read_text()
    assert record["kept_from_earlier_starts"] == 0


def test_a_cluster_of_its_own_needs_no_network(many: Path, whole: dict[str, bytes], out: Path) -> None:
    """--ray local."""
    line = score_line(many, out, *DATE, "--ray", "local", "--threads", "1", flags=WRITABLE)
    done = docker(*in_ray_image(line))
    assert done.returncode == 0, done.stderr
    assert csv_bytes(out) == whole


def test_the_image_without_ray_says_so(patients: Path, out: Path) -> None:
    done = docker(*score_line(patients, out, *DATE, "--ray", "local"))
    assert done.returncode == 2
    assert "--ray: Ray is not installed" in done.stderr
    assert "lympho-infer:ray" in done.stderr
