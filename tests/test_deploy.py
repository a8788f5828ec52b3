"""infer/deploy: manifests that Kubernetes takes, with the program's own options and exit codes; a script that runs."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from infer.cli import command
from infer.errors import EXIT_MEANING, FINISHED_WITH_FAILURES
from infer.merge.command import Merge, merge
from infer.output.journal import JOURNAL, read_journal
from tests.infer.runs import TINY, Outcome, names, score
from tests.soak import write_linked_cohort
from tests.synthetic import make_patients, write_cohort

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "infer/deploy"
MANIFESTS = sorted(DEPLOY.glob("*.yaml"))
POLICY = DEPLOY / "no-network.yaml"
JOBS = [path for path in MANIFESTS if path != POLICY]
OLDEST, NEWEST = "1.33", "1.37"  # since 1.33 backoffLimitPerIndex is stable
NIGHT = "2026-11-28"
ACT = {2, 4, 5, 6}  # a person has to act; infer/README.md says so
AGAIN = {1, 7, 8, 130, 137, 143}
DATE = "2019-07-01"


def manifest(path: Path) -> dict[str, Any]:
    of: dict[str, Any] = yaml.safe_load(path.read_text().replace("${NIGHT}", NIGHT))
    return of


def job(path: Path) -> dict[str, Any]:
    spec: dict[str, Any] = manifest(path)["spec"]
    return spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec


def container(path: Path) -> dict[str, Any]:
    (one,) = job(path)["template"]["spec"]["containers"]
    return dict(one)


def codes(path: Path) -> dict[str, set[int]]:
    rules = [rule for rule in job(path)["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert {rule["onExitCodes"]["containerName"] for rule in rules} == {container(path)["name"]}
    return {rule["action"]: set(rule["onExitCodes"]["values"]) for rule in rules}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_takes_it(path: Path, version: str) -> None:
    assert kubernetes_validate.validate(manifest(path), version, strict=True) == version


@pytest.mark.parametrize("change", ["completionMode", "podFailurePolicy", "template"])
def test_the_validator_finds_a_mistake(change: str) -> None:
    of = manifest(DEPLOY / "shards.yaml")
    of["spec"][f"{change}s"] = of["spec"].pop(change)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(of, NEWEST, strict=True)


def test_exit_codes_decide_who_is_tried_again() -> None:
    assert codes(DEPLOY / "shards.yaml") == {"FailIndex": ACT, "Count": AGAIN}
    assert codes(DEPLOY / "cronjob.yaml") == {"FailJob": ACT | {FINISHED_WITH_FAILURES}}
    assert {0, FINISHED_WITH_FAILURES} | ACT | AGAIN == set(EXIT_MEANING)


def test_the_number_of_shards_is_the_same_everywhere() -> None:
    spec = job(DEPLOY / "shards.yaml")
    of = re.fullmatch(r"--shard=\$\(JOB_COMPLETION_INDEX\)/(\d+)", container(DEPLOY / "shards.yaml")["args"][2])
    assert of
    assert int(of[1]) == spec["completions"] == spec["maxFailedIndexes"]


@pytest.mark.parametrize("name", ["shards.yaml", "cronjob.yaml"])
def test_the_program_takes_its_arguments(name: str) -> None:
    args = [one.replace("$(JOB_COMPLETION_INDEX)", "7") for one in container(DEPLOY / name)["args"]]
    parsed = command.make_context("infer", args).params
    assert parsed["patients"] == Path("/data/patients")
    if name == "shards.yaml":
        assert (parsed["shard"], f"{parsed['reference_date']:%Y-%m-%d}") == ("7/20", NIGHT)
        assert parsed["out"] == Path(f"/out/{NIGHT}/shard-7")
    with pytest.raises(click.NoSuchOption):
        command.make_context("infer", [*args, "--shards=1"])


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_it_runs_with_as_few_rights_as_by_hand(path: Path) -> None:
    pod, one = job(path)["template"]["spec"], container(path)
    assert (pod["automountServiceAccountToken"], pod["securityContext"]["runAsUser"]) == (False, 10001)
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert job(path)["template"]["metadata"]["labels"] == manifest(POLICY)["spec"]["podSelector"]["matchLabels"]
    assert all(mount.get("readOnly") for mount in one["volumeMounts"] if mount["mountPath"] == "/data/patients")
    assert one["resources"]["limits"]["memory"] == one["resources"]["requests"]["memory"]


# The script for Slurm, as one task of an array runs it


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "patients"
    write_cohort(folder, make_patients(4, seed=3, images=(10, 11)), seed=3, labels=False, size=128)
    return folder


def task(
    cohort: Path, out: Path, index: int, of: int = 2, program: str = sys.executable, pause: str = "0", shards: str = ""
) -> subprocess.Popen[bytes]:
    told = {
        "COHORT": str(cohort),
        "OUT": str(out),
        "NIGHT": DATE,
        "PYTHON": program,
        "PAUSE": pause,
        "SHARDS": shards,
        "SLURM_ARRAY_TASK_ID": str(index),
        "SLURM_ARRAY_TASK_COUNT": str(of),
        "SLURM_CPUS_PER_TASK": "1",
        "LYMPHO_OPTIONS": f"--bundle {TINY} --device cpu",
    }
    line = ["sh", str(DEPLOY / "shards.slurm")]
    return subprocess.Popen(line, cwd=ROOT, env=os.environ | told, stderr=subprocess.DEVNULL)


def test_tasks_of_an_array_score_all_patients(cohort: Path, tmp_path: Path) -> None:
    for index in range(2):
        assert task(cohort, tmp_path, index).wait() == 0
    assert merge(Merge(tuple(tmp_path / f"shard-{index}" for index in range(2)), tmp_path / "whole", TINY)) == 0
    whole = score(cohort, tmp_path / "one", bundle=TINY)
    assert Outcome(0, tmp_path / "whole").csv_bytes == whole.csv_bytes


@pytest.mark.parametrize(("code", "times"), [(0, 1), (7, 3), (8, 3), (137, 3), (1, 3), (2, 1), (4, 1), (5, 1), (6, 1)])
def test_what_may_pass_is_tried_three_times(tmp_path: Path, code: int, times: int) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho tried >> {tmp_path}/log\nexit {code}\n")
    program.chmod(0o755)
    assert task(tmp_path, tmp_path, 0, program=str(program)).wait() == code
    assert (tmp_path / "log").read_text().count("tried") == times


def test_a_signal_while_it_waits_ends_it(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho tried >> {tmp_path}/log\nexit 7\n")
    program.chmod(0o755)
    with task(tmp_path, tmp_path, 0, program=str(program), pause="600") as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (tmp_path / "log").exists():
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 7
    assert (tmp_path / "log").read_text().count("tried") == 1


def test_some_shards_of_all(cohort: Path, tmp_path: Path) -> None:
    assert task(cohort, tmp_path, 3, of=1, shards="5").wait() == 0
    assert Outcome(0, tmp_path / "shard-3").record["options"]["shard"] == "3/5"


def test_a_task_that_slurm_stops_keeps_its_patients(cohort: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    write_linked_cohort(many, cohort, 250)
    with task(many, tmp_path, 0, of=1) as process:
        journal = tmp_path / "shard-0" / JOURNAL
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not ((stored := read_journal(journal)) and stored.places):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    left = read_journal(journal)
    assert left
    assert 0 < len(left.places) < 250
    assert "run.json" not in names(tmp_path / "shard-0")
