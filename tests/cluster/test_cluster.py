"""Scoring on a real cluster of three raylets, against one process."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from infer.cluster import pool
from infer.errors import WorkerError
from infer.output.journal import JOURNAL, read_journal
from infer.output.names import LAST_RUN
from tests.cluster.conftest import NODE
from tests.cluster.faults import BLIND, OTHER, POISON, ROUNDS, Blind, Disobedient, Poisoned, Rounding
from tests.infer.runs import MANY_PATIENTS, TINY, Outcome, csv_bytes, replace_picture, score, verdict
from tests.infer.test_pixel_size import KNOWN, stating
from tests.infer.test_unusual import blurred

ROOT = Path(__file__).parents[2]


def on(cluster: Any, cohort: Path, out: Path, **options: Any) -> Outcome:
    return score(cohort, out, **{"bundle": TINY, "ray": cluster.address, "workers": 1, **options})


def on_one_node_more(cluster: Any, variable: str, cohort: Path, out: Path) -> tuple[Any, Outcome]:
    """The same, with one more node for the run that has this variable set; returns the node, too."""
    other = cluster.add_node(**NODE, env_vars={variable: "1"})
    try:
        return other, on(cluster, cohort, out)
    finally:
        cluster.remove_node(other)


def finished(out: Path) -> int:
    stored = read_journal(out / JOURNAL)
    return len(stored.places) if stored else 0


def when_finished(out: Path, patients: int, do: Any) -> threading.Thread:
    """Do something as soon as so many patients are in the journal."""

    def watch() -> None:
        until = time.monotonic() + 60
        while finished(out) < patients and time.monotonic() < until:
            time.sleep(0.005)
        do()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_cluster_gives_the_bytes_of_one_process(cluster: Any, many: Path, whole: Outcome, tmp_path: Path) -> None:
    outcome = on(cluster, many, tmp_path)
    assert outcome.code == 0
    assert outcome.csv_bytes == whole.csv_bytes
    assert (tmp_path / "drift.json").read_bytes() == (whole.out / "drift.json").read_bytes()
    nodes = outcome.record["nodes"]
    assert len({node["node"] for node in nodes}) == 3
    assert [node["same_rounding"] for node in nodes] == [True] * 3
    assert sum(node["patients"] for node in nodes) == MANY_PATIENTS
    assert min(node["patients"] for node in nodes) > 0


def test_a_node_lost_in_mid_run_costs_nothing(cluster: Any, many: Path, whole: Outcome, tmp_path: Path) -> None:
    lost = cluster.add_node(**NODE)
    killer = when_finished(tmp_path, 40, lambda: cluster.remove_node(lost, allow_graceful=False))
    outcome = on(cluster, many, tmp_path)
    killer.join()
    assert outcome.csv_bytes == whole.csv_bytes
    assert outcome.record["kept_from_earlier_starts"] == 0
    log = (tmp_path / "run.log").read_text()
    assert re.search(r"an actor is lost, and [1-9]\d* patients are scored elsewhere", log)
    assert sum(node["patients"] for node in outcome.record["nodes"]) == MANY_PATIENTS


def command(cluster: Any, cohort: Path, out: Path) -> list[str]:
    fixed = ["--device", "cpu", "--bundle", str(TINY), "--reference-date", "2019-07-01"]
    return [sys.executable, "-m", "infer", str(cohort), str(out), "--ray", cluster.address, *fixed]


def decoders() -> set[int]:
    """Processes of this cluster that decode: they know its token."""
    token = os.environ["RAY_AUTH_TOKEN"].encode()
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"infer.pictures.worker" in path.read_bytes() and token in (path.parent / "environ").read_bytes():
                found.add(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_driver_that_is_stopped_goes_on_where_it_was(
    cluster: Any, many: Path, whole: Outcome, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    before, during = decoders(), set()
    process = subprocess.Popen(command(cluster, many, tmp_path), cwd=ROOT, stderr=subprocess.DEVNULL)

    def stop() -> None:
        during.update(decoders())
        process.send_signal(sent)

    when_finished(tmp_path, 30, stop).join()
    assert process.wait(60) == code
    kept = finished(tmp_path)
    assert 30 <= kept < MANY_PATIENTS
    assert during - before
    until = time.monotonic() + 30
    while decoders() - before and time.monotonic() < until:
        time.sleep(0.1)
    assert decoders() - before == set()  # no actor works on for a driver that is gone
    outcome = on(cluster, many, tmp_path)
    assert outcome.record["kept_from_earlier_starts"] == kept
    assert outcome.csv_bytes == whole.csv_bytes


def test_a_patient_that_kills_its_actor_twice_has_failed_and_nobody_else(
    cluster: Any, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ACTOR", Poisoned)
    plain = score(pristine, tmp_path / "plain", bundle=TINY)
    outcome = on(cluster, pristine, tmp_path / "out")
    assert outcome.code == 3
    rows = outcome.predictions
    assert list(rows) == list(plain.predictions)
    assert verdict(rows.pop(POISON)) == ("failed", "reading_broke_off")
    expected = plain.predictions
    del expected[POISON]
    assert rows == expected
    assert outcome.record["not_scored"] == [{"patient_id": POISON, "status": "failed", "code": "reading_broke_off"}]
    of_patient = outcome.images_of(POISON)
    assert of_patient.keys() == plain.images_of(POISON).keys()
    assert set(of_patient.values()) == {("rejected", "patient_failed")}


def test_a_node_that_rounds_otherwise_is_named(
    cluster: Any, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ACTOR", Rounding)
    other, outcome = on_one_node_more(cluster, ROUNDS, many, tmp_path)
    (found,) = [node for node in outcome.record["nodes"] if not node["same_rounding"]]
    assert (found["node"], found["numerics"]) == (other.node_id, OTHER)
    assert len(outcome.record["nodes"]) == 4
    log = (tmp_path / "run.log").read_text()
    (line,) = [line for line in log.splitlines() if "round differently" in line]
    assert f"({other.node_id[:12]})" in line


def test_a_node_without_the_share_fails_nobody(
    cluster: Any, many: Path, whole: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ACTOR", Blind)
    other, outcome = on_one_node_more(cluster, BLIND, many, tmp_path)
    assert outcome.code == 0
    assert outcome.csv_bytes == whole.csv_bytes
    log = (tmp_path / "run.log").read_text()
    assert re.search(rf"\({other.node_id[:12]}\): takes no part: 5 patients in a row could not be read", log)


def test_where_every_actor_breaks_the_run_ends_and_says_why(
    cluster: Any, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ACTOR", Disobedient)
    with pytest.raises(WorkerError, match=r"no node of the cluster can score: .*out of memory for the test"):
        on(cluster, many, tmp_path)


def test_no_log_of_ray_holds_a_patients_value(cluster: Any, many: Path, tmp_path: Path) -> None:
    on(cluster, many, tmp_path)
    import ray

    assert not ray.is_initialized()
    folder = Path(cluster.head_node.get_logs_dir_path())
    texts = [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
    assert len(texts) > 10
    assert not any("P00010" in text or "lymph_count" in text for text in texts)


def test_there_is_no_cluster(pristine: Path, tmp_path: Path) -> None:
    """It may be there the next time that the scheduler tries."""
    with pytest.raises(WorkerError, match=r"--ray 127\.0\.0\.1:1: no cluster can be joined: nothing answers there"):
        score(pristine, tmp_path, bundle=TINY, ray="127.0.0.1:1")
    assert not (tmp_path / "run.json").exists()


def test_what_answers_is_no_cluster(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped port, with something behind it that says nothing. Ray itself would try for ever."""
    monkeypatch.setattr("infer.cluster.connect.HEALTH", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(WorkerError, match=r"no head of a cluster answers within 5 seconds"):
            score(pristine, tmp_path, bundle=TINY, ray=address)


def test_another_token_is_said_to_be_one(cluster: Any, pristine: Path, tmp_path: Path) -> None:
    line = command(cluster, pristine, tmp_path)
    environment = {**os.environ, "RAY_AUTH_TOKEN": "u" * 64}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the cluster asks for a token. Set RAY_AUTH_MODE=token" in done.stderr.splitlines()[-1]


def test_all_options_go_to_the_actors(cluster: Any, cohort: Path, tmp_path: Path) -> None:
    """Each off its default, and each changes results."""
    for path in (cohort / "S001").iterdir():
        replace_picture(path, blurred(path.read_bytes()))
    options: dict[str, Any] = {
        "prevalence": 0.1,
        "operating_point": "sensitivity-98",
        "ood": "refuse",
        "pixel_size": 1.1 * KNOWN,
        "batch_size": 3,
        "bundle": stating(TINY, tmp_path / "bundle"),
    }
    plain = score(cohort, tmp_path / "plain", **options)
    assert on(cluster, cohort, tmp_path / "there", **options).csv_bytes == plain.csv_bytes
    for name, usual in (("prevalence", None), ("operating_point", "balanced"), ("pixel_size", None), ("ood", "warn")):
        other = score(cohort, tmp_path / name, **{**options, name: usual})
        assert other.csv_bytes != plain.csv_bytes, name
    changing = on(cluster, cohort, tmp_path / "changing", settle=3600.0).predictions
    assert {row["reason"].partition(":")[0] for row in changing.values()} == {"still_changing"}


@pytest.mark.parametrize("seconds", [2.5, 4.0])
def test_a_signal_while_a_cluster_is_joined_is_143(pristine: Path, tmp_path: Path, seconds: float) -> None:
    """Ray's own handler would end it with 15, and leave processes behind."""

    class Local:
        address = "local"

    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    before = sessions()
    line = [*command(Local, pristine, tmp_path / "out"), f"--metrics={tmp_path / 'm.prom'}"]
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    while not sessions() - before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds - 2.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert "} 143" in (tmp_path / "m.prom").read_text()
    assert sessions() - before == set()  # its folder is gone, too


def sessions() -> set[Path]:
    return set(Path("/tmp").glob("lympho-ray-*"))


def test_a_signal_while_nobody_scores_is_143(cluster: Any, pristine: Path, tmp_path: Path) -> None:
    """All processors are taken, so the driver waits in a call of Ray's, which makes SystemExit(1) of every other."""
    taken = [sys.executable, "-c", TAKING, cluster.address]
    with subprocess.Popen(taken, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as other:
        try:
            assert other.stdout
            assert other.stdout.readline() == "taken\n"
            process = subprocess.Popen(command(cluster, pristine, tmp_path), cwd=ROOT, stderr=subprocess.DEVNULL)
            until = time.monotonic() + 60
            while not (tmp_path / JOURNAL).exists() and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(3)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143
        finally:
            other.kill()
    assert json.loads((tmp_path / LAST_RUN).read_text())["exit_code"] == 143


TAKING = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=1)
class Taken:
    def here(self): return 1
actors = [Taken.remote() for _ in range(3)]
ray.get([one.here.remote() for one in actors])
print("taken", flush=True)
time.sleep(600)
"""


def test_a_head_that_is_lost_is_said_to_be(many: Path, tmp_path: Path) -> None:
    """Before Ray ends the process without a word. The same command goes on with another cluster."""
    port = free_port()
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path)}
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    options = ["--head", f"--port={port}", "--include-dashboard=false", "--num-cpus=1", "--block"]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        line = [*ray, "start", *options, f"--temp-dir={folder}/ray", f"--object-store-memory={100 << 20}"]
        with subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
            try:

                class Own:
                    address = f"127.0.0.1:{port}"

                until = time.monotonic() + 60
                while not answers(port) and time.monotonic() < until:
                    time.sleep(0.2)
                time.sleep(2)
                line = [*command(Own, many, tmp_path / "out"), f"--metrics={tmp_path / 'm.prom'}"]
                process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
                when_finished(tmp_path / "out", 20, lambda: os.kill(process.pid, signal.SIGSTOP)).join()
                for path in Path("/proc").glob("[0-9]*/cmdline"):
                    with contextlib.suppress(OSError):
                        if b"gcs_server" in path.read_bytes() and str(port).encode() in path.read_bytes():
                            os.kill(int(path.parent.name), signal.SIGKILL)
                os.kill(process.pid, signal.SIGCONT)
                _, said = process.communicate(timeout=90)
            finally:
                head.terminate()
    if process.returncode == 0:  # it had finished before it looked
        pytest.fail("the run was too short")
    assert process.returncode == 1
    assert "no longer answers" in said.splitlines()[-1]
    assert "no longer answers" in json.loads((tmp_path / "out" / LAST_RUN).read_text())["message"]
    assert "} 1\n" in (tmp_path / "m.prom").read_text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


LISTENING = """
import json, os, sys
from pathlib import Path
from infer.cluster.connect import joined
with joined("local") as ray:
    ray.get(ray.remote(lambda: 1).remote())
    session = os.getsid(0)
    inodes = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            if os.environ["RAY_AUTH_TOKEN"].encode() not in environment and process.name != str(os.getpid()):
                continue
            for file in (process / "fd").iterdir():
                inodes[os.readlink(file)] = process.name
        except OSError:
            continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                found.append(words[1].partition(":")[0])
    print(json.dumps(found))
"""


def test_a_local_cluster_listens_to_this_machine_alone(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert len(found) >= 4
    assert set(found) <= loopback
    assert list(tmp_path.iterdir()) == []  # no token is left in the home folder


def test_local_gives_the_same_bytes(many: Path, whole: Outcome, tmp_path: Path) -> None:
    class Local:
        address = "local"

    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    subprocess.run(command(Local, many, tmp_path), cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert csv_bytes(tmp_path) == whole.csv_bytes
