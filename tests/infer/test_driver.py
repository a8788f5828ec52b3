"""The driver of a cluster, with a Ray that is played: who gets which patient, and what becomes of a lost actor's."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from infer.bundle.load import load_bundle
from infer.cluster import driver, pool, retries
from infer.cluster.driver import FEWEST_HELD, Driver
from infer.cluster.places import Place, places
from infer.cluster.pool import MOST_DEATHS, MOST_HELD
from infer.cluster.work import (
    Answer,
    Hello,
    Refusal,
    Work,
    answer_of,
    answer_text,
    hello_of,
    patient_of,
    patient_text,
    work_of,
)
from infer.cohort.patient import Clinical, Patient, Verdict
from infer.errors import BundleError, WorkerError
from infer.scoring.result import ImageResult, PatientResult
from tests.infer.runs import TINY

HELLO = Hello("here", "usual", "CPUExecutionProvider", "", "int8", 1, ())
WORK = Work(Path("p"), (), Path("t"), "", TINY, "", "", "", "cpu", "balanced", None, None, 0, 0.0, "refer", 1.0)


class _GoneError(Exception):
    """An actor's death, as Ray tells it."""


@dataclass(eq=False)
class _Reference:
    actor: "_Actor"
    patient: Patient | None = None  # None: of `hello`


@dataclass(eq=False)
class _Actor:
    node: str
    dead: bool = False
    held: list[_Reference] = field(default_factory=list)

    @property
    def hello(self) -> Any:
        return SimpleNamespace(remote=lambda: _Reference(self))

    @property
    def score(self) -> Any:
        def remote(text: str) -> _Reference:
            assert not self.dead
            self.held.append(_Reference(self, patient_of(text)))
            return self.held[-1]

        return SimpleNamespace(remote=remote)


class Played:
    """Stands for the module `ray`: an actor answers for one patient at a time, the last one first."""

    exceptions = SimpleNamespace(RayError=_GoneError)
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
    )

    def __init__(self, nodes: dict[str, int], kills: Callable[[str, Patient], bool] = lambda node, patient: False):
        self.alive = dict(nodes)
        self.kills = kills
        self.fails: Callable[[str, Patient], bool] = lambda node, patient: False
        self.blinks: Callable[[str, Patient], bool] = lambda node, patient: False  # cannot read a picture
        self.stillborn: Callable[[str], bool] = lambda node: False
        self.tried: Counter[str] = Counter()  # patients whose pictures were read, by node
        self.scored_on: list[str] = []  # nodes, patient by patient
        self.hello: Callable[[str], Hello | Refusal] = lambda node: HELLO
        self.actors: list[_Actor] = []
        self.most_held = self.asked = self.deaths = 0
        self.alone: list[str] = []  # patients who were the only ones of their actor when they were scored

    def nodes(self) -> list[dict[str, Any]]:
        self.asked += 1
        assert self.asked < 10_000, "the run does not end"
        return [
            {"NodeID": node, "Alive": processors > 0, "Resources": {"CPU": float(processors)}}
            for node, processors in self.alive.items()
        ]

    def remote(self, scheduling_strategy: str, **options: Any) -> Any:
        assert options["max_restarts"] == options["max_task_retries"] == 0
        assert options["max_concurrency"] >= MOST_HELD + 2  # `hello` and `score` wait side by side
        assert options["num_gpus"] == 0
        assert 0 < options["num_cpus"] <= self.alive[scheduling_strategy]

        def made(work: str, processors: int) -> _Actor:
            assert work_of(work) == WORK
            self.actors.append(_Actor(scheduling_strategy))
            return self.actors[-1]

        return lambda actor: SimpleNamespace(remote=made)

    def wait(self, references: list[_Reference], num_returns: int, timeout: float) -> tuple[list[_Reference], None]:
        self.most_held = max([self.most_held, *(len(actor.held) for actor in self.actors)])
        ready = [one for one in references if one.patient is None or one.actor.dead or one is one.actor.held[-1]]
        return ready[:num_returns], None

    def get(self, reference: _Reference) -> str:
        actor = reference.actor
        if self.alive[actor.node] == 0 or actor.dead or (reference.patient is None and self.stillborn(actor.node)):
            actor.dead = True
            raise _GoneError
        if reference.patient is None:
            return answer_text(self.hello(actor.node))
        if len(actor.held) == 1:
            self.alone.append(reference.patient.patient_id)
        if self.kills(actor.node, reference.patient):
            actor.dead, self.deaths = True, self.deaths + 1
            raise _GoneError
        actor.held.remove(reference)
        self.scored_on.append(actor.node)
        self.tried[actor.node] += reference.patient.verdict is None
        verdict = reference.patient.verdict
        failed = "failed" if self.fails(actor.node, reference.patient) else "scored"
        status = verdict.status if verdict else failed
        images = (ImageResult("1.jpg", "unreadable: Permission denied"),) * self.blinks(actor.node, reference.patient)
        return answer_text(Answer(msgspec.structs.replace(result(reference.patient, status), images=images)))

    def kill(self, actor: _Actor, no_restart: bool) -> None:
        actor.dead = True


def result(patient: Patient, status: str = "scored") -> PatientResult:
    return PatientResult(patient.patient_id, status, "", None, None, ())


def patients(number: int) -> tuple[Patient, ...]:
    return tuple(Patient(f"P{one:03}", one + 2, Clinical(True, 5.5, 60.1), None) for one in range(number))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "SCAN", 0.0)
    monkeypatch.setattr(pool, "SCAN", 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which goes on by ten seconds whenever somebody looks."""
    now = [0.0]

    def look() -> float:
        now[0] += 10.0
        return now[0]

    monkeypatch.setattr("time.monotonic", look)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return now


def driver_of(played: Played, threads: int | None = None) -> Driver:
    return Driver(played, WORK, load_bundle(TINY).manifest, threads, "usual")


def scored(played: Played, number: int) -> dict[str, str]:
    """Status of each patient, by ID; each comes exactly once."""
    of = driver_of(played)
    found = list(of.score(patients(number)))
    assert of.retries.empty
    assert sorted(patient.line for patient, _ in found) == [one + 2 for one in range(number)]
    assert all(patient.patient_id == result.patient_id for patient, result in found)
    assert all(actor.dead for actor in played.actors)  # none is left behind
    return {result.patient_id: result.status for _, result in found}


def test_every_patient_is_scored_once_and_few_are_on_their_way() -> None:
    played = Played({"a": 1, "b": 1, "c": 1})
    assert set(scored(played, 500).values()) == {"scored"}
    assert played.most_held == MOST_HELD
    assert len(played.actors) == 3


def test_near_the_end_no_actor_hoards_patients() -> None:
    played = Played({"a": 1, "b": 1})
    scored(played, 6)
    assert played.most_held == FEWEST_HELD


def test_a_patient_that_kills_two_actors_has_failed_and_those_beside_it_have_not() -> None:
    played = Played({"a": 1, "b": 1}, lambda node, patient: patient.patient_id in ("P007", "P008"))
    found = scored(played, 300)
    assert {name for name, status in found.items() if status == "failed"} == {"P007", "P008"}
    assert {"P007", "P008"} <= set(played.alone)
    assert played.deaths == 3  # both were in one actor's hand; then each was alone


def test_on_one_node_alone_too() -> None:
    played = Played({"a": 1}, lambda node, patient: patient.line % 10 == 0)
    found = scored(played, 100)
    assert {name for name, status in found.items() if status == "failed"} == {f"P{one:03}" for one in range(8, 100, 10)}


def test_a_row_of_such_patients_does_not_cost_the_only_node() -> None:
    poison = {f"P{one:03}" for one in range(40, 40 + 2 * MOST_DEATHS)}
    played = Played({"a": 1}, lambda node, patient: patient.patient_id in poison)
    found = scored(played, 64)
    assert {name for name, status in found.items() if status == "failed"} == poison


def test_deaths_between_finished_patients_do_not_add_up(caplog: pytest.LogCaptureFixture) -> None:
    played = Played({"a": 1, "b": 1}, lambda node, patient: patient.line % 20 == 0)
    found = scored(played, 300)
    assert sum(status == "failed" for status in found.values()) == 15
    assert played.deaths > 2 * MOST_DEATHS
    assert "takes no part" not in caplog.text


def test_a_suspect_goes_to_another_node() -> None:
    """A node whose actors die at every patient costs nobody a result."""
    played = Played({"a": 1, "bad": 1, "c": 1}, lambda node, patient: node == "bad")
    assert set(scored(played, 300).values()) == {"scored"}
    assert sum(actor.node == "bad" for actor in played.actors) == MOST_DEATHS


def test_a_node_that_cannot_read_fails_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It would be the fastest of all: failing takes no time."""
    played = Played({"a": 1, "sick": 1, "c": 1})
    played.fails = lambda node, patient: node == "sick"
    assert set(scored(played, 500).values()) == {"scored"}
    assert played.scored_on.count("sick") <= retries.MOST_OPEN + MOST_HELD
    assert "node sick: takes no part: 5 patients in a row could not be read on this node, but on others." in (
        caplog.text.replace("here (sick)", "node sick")
    )


def test_a_node_that_cannot_read_does_not_confirm_itself_while_others_start() -> None:
    """It is ready first."""
    played = Played({"sick": 1, "slow": 1})
    played.fails = lambda node, patient: node == "sick"
    wait = played.wait

    def late(references: list[_Reference], num_returns: int, timeout: float) -> tuple[list[_Reference], None]:
        started = len(played.scored_on) >= 40
        return wait([one for one in references if one.actor.node == "sick" or started], num_returns, timeout)

    played.wait = late  # type: ignore[method-assign]
    assert set(scored(played, 60).values()) == {"scored"}


def test_a_node_that_never_starts_is_not_waited_for(clock: list[float]) -> None:
    played = Played({"a": 1, "never": 1})
    played.fails = lambda node, patient: patient.line == 7
    wait = played.wait
    played.wait = lambda references, num_returns, timeout: wait(  # type: ignore[method-assign]
        [one for one in references if one.actor.node == "a"], num_returns, timeout
    )
    found = scored(played, 20)
    assert [name for name, status in found.items() if status == "failed"] == ["P005"]
    assert clock[0] >= pool.PATIENCE


def test_a_picture_that_one_node_alone_cannot_read_is_not_missing() -> None:
    """The number would be another, and look right."""
    played = Played({"a": 1, "sick": 1})
    played.blinks = lambda node, patient: node == "sick"
    found = list(driver_of(played).score(patients(300)))
    assert len(found) == 300
    assert not any(result.images for _, result in found)
    played.blinks = lambda node, patient: patient.line == 9
    found = list(driver_of(played).score(patients(30)))
    assert [patient.line for patient, result in found if result.images] == [9]


def test_while_others_are_slow_a_node_that_cannot_read_gets_few_patients() -> None:
    played = Played({"sick": 1, "slow": 1})
    played.fails = lambda node, patient: node == "sick"
    wait, waits = played.wait, itertools.count()

    def slowly(references: list[_Reference], num_returns: int, timeout: float) -> tuple[list[_Reference], None]:
        all_of_them = next(waits) % 50 < 2
        fast = [one for one in references if one.patient is None or one.actor.node == "sick" or all_of_them]
        return wait(fast, num_returns, timeout)

    played.wait = slowly  # type: ignore[method-assign]
    assert set(scored(played, 200).values()) == {"scored"}
    assert played.scored_on.count("sick") <= retries.MOST_OPEN + MOST_HELD


def test_rows_that_the_table_refuses_prove_no_node() -> None:
    """Nothing is read for them."""
    played = Played({"a": 1, "sick": 1})
    played.fails = lambda node, patient: node == "sick"
    refused = Verdict("refused", "count_missing: x")
    some = [replace(one, clinical=None, verdict=refused) if one.line % 3 else one for one in patients(600)]
    found = list(driver_of(played).score(some))
    assert sorted({result.status for _, result in found}) == ["refused", "scored"]
    assert sum(one.verdict is None for one in some) == 200
    assert played.tried["sick"] <= retries.MOST_OPEN + MOST_HELD


def test_a_doubt_does_not_come_back_although_another_actor_died_with_it() -> None:
    played = Played({"sick": 1, "dies": 1, "c": 1})
    played.kills = lambda node, patient: node == "dies" and played.deaths < 3
    played.blinks = lambda node, patient: node == "sick"
    of = driver_of(played)
    assert not any(result.images for _, result in of.score(patients(300)))
    assert of.retries.empty


def test_of_two_nodes_that_cannot_read_neither_confirms_the_other() -> None:
    """They say different things, and a third one reads everything."""
    played = Played({"fails": 1, "blinks": 1, "c": 1})
    played.fails = lambda node, patient: node == "fails"
    played.blinks = lambda node, patient: node == "blinks"
    of = driver_of(played)
    found = list(of.score(patients(300)))
    assert {result.status for _, result in found} == {"scored"}
    assert not any(result.images for _, result in found)
    assert of.retries.empty


def test_where_no_third_node_is_left_the_try_that_read_most_counts() -> None:
    played = Played({"fails": 1, "blinks": 1})
    played.fails = lambda node, patient: node == "fails" and patient.line == 9
    played.blinks = lambda node, patient: node == "blinks" and patient.line == 9
    found = {patient.line: result for patient, result in driver_of(played).score(patients(30))}
    assert (found[9].status, len(found[9].images)) == ("scored", 1)


@pytest.mark.parametrize("seed", range(20))
def test_only_who_kills_an_actor_when_alone_has_failed(seed: int) -> None:
    """Among patients with a picture that nobody can read, and on nodes that read badly."""
    chance = random.Random(seed)
    killers = set(chance.sample([line for line in range(2, 122) if line % 9], 5))  # nothing is read for a refused row
    unread = set(chance.sample(range(2, 122), 20))
    played = Played({"a": 1, "b": 2, "c": 1}, lambda node, patient: patient.line in killers)
    played.blinks = lambda node, patient: patient.line in unread or (node == "c" and patient.line % 4 == 0)
    of = driver_of(played)
    refused = Verdict("refused", "count_missing: x")
    some = [replace(one, verdict=refused) if one.line % 9 == 0 else one for one in patients(120)]
    found = {patient.line: result for patient, result in of.score(some)}
    assert {line for line, result in found.items() if result.status == "failed"} == killers
    scored_without = {line for line, result in found.items() if result.images and result.status == "scored"}
    assert scored_without == {line for line in unread - killers if line % 9}
    assert of.retries.empty
    assert sum(node["patients"] for node in of.nodes()) == 120 - len(killers)


def test_a_refusal_of_a_node_that_is_gone_is_forgotten(clock: list[float]) -> None:
    played = Played({"b": 1})

    def refuses_and_goes(node: str) -> Hello | Refusal:
        if node != "b":
            return HELLO
        played.alive |= {"b": 0, "new": 0}
        return Refusal("another version", 2)

    played.hello = refuses_and_goes
    nodes, looks = played.nodes, itertools.count()

    def later() -> list[dict[str, Any]]:
        if next(looks) == 3:
            played.alive["new"] = 1
        return nodes()

    played.nodes = later  # type: ignore[method-assign]
    assert set(scored(played, 3).values()) == {"scored"}


def test_who_fails_everywhere_has_failed_and_costs_no_node(caplog: pytest.LogCaptureFixture) -> None:
    played = Played({"a": 1, "b": 1})
    played.fails = lambda node, patient: patient.line % 3 == 0
    found = scored(played, 300)
    assert sum(status == "failed" for status in found.values()) == 100
    assert len(played.scored_on) == 400  # those twice, on two nodes
    assert "takes no part" not in caplog.text


def test_on_one_node_alone_a_failure_counts() -> None:
    """As without a cluster."""
    played = Played({"a": 1})
    played.fails = lambda node, patient: patient.line % 3 == 0
    assert sum(status == "failed" for status in scored(played, 30).values()) == 10
    assert len(played.scored_on) == 30


def test_whom_the_table_fails_is_not_tried_again() -> None:
    played = Played({"a": 1, "b": 1})
    played.fails = lambda node, patient: True
    doubtless = tuple(replace(one, clinical=None, verdict=Verdict("failed", "id_duplicate: x")) for one in patients(20))
    assert len(list(driver_of(played).score(doubtless))) == len(played.scored_on) == 20


def test_a_node_that_fails_now_and_then_stays(caplog: pytest.LogCaptureFixture) -> None:
    """Its patients are tried elsewhere, and it goes on."""
    played = Played({"a": 1, "flaky": 1})
    played.fails = lambda node, patient: node == "flaky" and patient.line % 4 == 0
    assert set(scored(played, 400).values()) == {"scored"}
    assert played.scored_on.count("flaky") > 100
    assert "takes no part" not in caplog.text


class Finished(Played):
    """Its actors have finished all that they were given, but for one patient, at whom an actor dies."""

    def wait(self, references: list[_Reference], num_returns: int, timeout: float) -> tuple[list[_Reference], None]:
        return references[:num_returns], None

    def get(self, reference: _Reference) -> str:
        patient = reference.patient
        if patient is None:
            return answer_text(HELLO)
        if patient.patient_id == "P000" and not self.deaths:
            self.deaths, reference.actor.dead = 1, True
            raise _GoneError
        return answer_text(Answer(result(patient)))


def test_what_an_actor_had_finished_when_it_died_is_a_result(caplog: pytest.LogCaptureFixture) -> None:
    assert len(scored(Finished({"a": 1, "b": 1}), 60)) == 60
    assert "an actor is lost, and 1 patients are scored elsewhere" in caplog.text


def test_actors_that_die_at_their_start_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """Also on a node that has finished patients before: such a death is nobody's fault, and comes again for ever."""
    played = Played({"a": 1}, lambda node, patient: patient.patient_id == "P040")
    played.stillborn = lambda node: played.deaths > 0
    with pytest.raises(WorkerError, match=r"5 actors were lost one after the other: its process ended at the start"):
        scored(played, 64)
    assert len(played.actors) == 1 + MOST_DEATHS


def test_starts_that_fail_now_and_then_do_not_add_up() -> None:
    played = Played({"a": 1}, lambda node, patient: patient.line % 10 == 0)
    played.stillborn = lambda node: len(played.actors) % 2 == 0
    scored(played, 200)
    assert len(played.actors) > 2 * MOST_DEATHS


def test_a_lost_node_is_waited_for_although_another_refuses(clock: list[float]) -> None:
    """Otherwise a short loss would end the night with the other's code, which nobody tries again."""
    played = Played({"a": 1, "b": 1})
    played.hello = lambda node: Refusal("another version", 2) if node == "b" else HELLO
    found = driver_of(played).score(patients(100))
    next(found)
    played.alive["a"] = 0
    with pytest.raises(WorkerError, match=r"for 120 seconds no node of the cluster with a processor could score"):
        list(found)
    assert clock[0] > 120
    played.alive |= {"a": 1}
    found = driver_of(played).score(patients(100))
    next(found)
    played.alive |= {"a": 0, "new": 1}
    assert len(list(found)) == 99


def test_a_busy_cluster_is_waited_for_aloud_and_not_for_ever(
    clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played({"a": 1})
    monkeypatch.setattr(played, "wait", lambda *of, **more: ([], None))
    with pytest.raises(WorkerError, match=r"no actor has started in 60 minutes: the cluster is busy"):
        list(driver_of(played).score(patients(3)))
    said = [line for line in caplog.messages if "no actor has started for" in line]
    assert 6 <= len(said) <= 7  # after a minute, and every ten minutes
    assert clock[0] >= 3600


def test_a_head_that_no_longer_answers_ends_the_run(clock: list[float]) -> None:
    """Ray is not asked meanwhile: its call would not come back."""
    played = Played({"a": 1})
    of = Driver(played, WORK, load_bundle(TINY).manifest, None, "usual", head="127.0.0.1:1")
    with pytest.raises(WorkerError, match=r"^the cluster's head at 127\.0\.0\.1:1 no longer answers"):
        list(of.score(patients(3)))
    assert played.asked == 0


def test_that_actors_cannot_be_ended_is_said_and_hides_no_error(caplog: pytest.LogCaptureFixture) -> None:
    played = Played({"a": 1}, lambda node, patient: True)

    def broken(actor: Any, no_restart: bool) -> None:
        raise RuntimeError("not connected")

    found = driver_of(played).score(patients(3))
    played.hello = lambda node: HELLO
    played.kills = lambda node, patient: False
    next(found)
    played.kill = broken  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        found.throw(KeyError("the error"))
    assert "here (a): its actor could not be ended (RuntimeError)" in caplog.text


def test_a_node_that_is_lost_and_one_that_joins() -> None:
    played = Played({"a": 1, "b": 1})
    found = []
    for count, (patient, _) in enumerate(driver_of(played).score(patients(300))):
        found.append(patient.line)
        if count == 50:
            played.alive["b"] = 0
        if count == 100:
            played.alive["new"] = 1
    assert sorted(found) == [one + 2 for one in range(300)]
    assert {actor.node for actor in played.actors} == {"a", "b", "new"}


def test_where_no_actor_ever_finishes_a_patient_the_run_ends() -> None:
    played = Played({"a": 1, "b": 1}, lambda node, patient: True)
    with pytest.raises(WorkerError, match=r"no node of the cluster can score: 5 actors were lost one after the other"):
        scored(played, 300)


def test_a_node_that_refuses_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    played = Played({"a": 1, "b": 1})
    played.hello = lambda node: Refusal("another version of lympho is installed there", 2) if node == "b" else HELLO
    assert set(scored(played, 20).values()) == {"scored"}
    assert "node b: takes no part: another version of lympho is installed there" in caplog.text


def test_where_all_refuse_the_run_ends_with_their_code() -> None:
    played = Played({"a": 1, "b": 1})
    played.hello = lambda node: Refusal("self-test failed", 5)
    with pytest.raises(BundleError, match=r"^no node of the cluster can score: self-test failed$"):
        scored(played, 20)


def test_without_a_place_the_run_waits_and_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(WorkerError, match=r"for 120 seconds no node of the cluster with 2 processors could score"):
        list(driver_of(Played({"a": 1}), threads=2).score(patients(2)))


def test_the_record_of_the_nodes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    played = Played({"a": 1, "b": 1})
    played.hello = lambda node: Hello(f"host-{node}", "usual" if node == "a" else "other", "CPU", "", "int8", 1, ("x",))
    of = driver_of(played)
    found = list(of.score(patients(40)))
    nodes = {node["node"]: node for node in of.nodes()}
    assert {name: node["same_rounding"] for name, node in nodes.items()} == {"a": True, "b": False}
    assert sum(node["patients"] for node in nodes.values()) == len(found) == 40
    rounds = "host-b (b): its networks round differently than the driver's: last digits may differ"
    assert of.downgrades == ["host-a (a): x", "host-b (b): x", rounds]  # kept in the journal, for later starts


@pytest.mark.parametrize(
    ("resources", "device", "threads", "expected"),
    [
        ({"CPU": 16.0}, "auto", None, [(16, 0)]),
        ({"CPU": 16.0}, "cpu", 4, [(4, 0)] * 4),
        ({"CPU": 3.0}, "cpu", 4, []),
        ({"CPU": 16.0, "GPU": 4.0}, "auto", None, [(4, 1)] * 4),
        ({"CPU": 16.0, "GPU": 4.0}, "cpu", None, [(16, 0)]),
        ({"CPU": 16.0, "GPU": 4.0}, "cuda", 8, [(8, 1)] * 2),
        ({"CPU": 16.0}, "cuda", None, []),
        ({}, "auto", None, []),  # a head that takes no work
    ],
)
def test_places(resources: dict[str, float], device: str, threads: int | None, expected: list[tuple[int, int]]) -> None:
    nodes = [{"NodeID": "n", "Alive": True, "Resources": resources}, {"NodeID": "gone", "Alive": False}]
    found = places(nodes, device, threads)
    assert [(place.processors, place.gpus) for place in found] == expected
    assert found == [Place("n", one, *expected[one]) for one in range(len(expected))]


def test_what_goes_to_an_actor_comes_back_unchanged() -> None:
    odd = Patient("\udcff é", 7, Clinical(False, 0.1 + 0.2, 71.3), Verdict("refused", "x: y"), look_alike="é")
    assert patient_of(patient_text(odd)) == odd
    assert work_of(WORK.text()) == WORK
    image = ImageResult("\udcff.jpg", values={"a": 1 / 3, "b": 2}, influence=-1e-300)
    whole = PatientResult("\udcff", "scored", "", 0.1 + 0.2, None, (image,), contents=("aa",), measures={"m": 1e-17})
    for one in (whole, msgspec.structs.replace(whole, patient_id="é", images=())):
        assert answer_of(answer_text(Answer(one, ("d",)))) == Answer(one, ("d",))
    for said in (HELLO, Refusal("why", 5)):
        assert hello_of(answer_text(said)) == said
    assert all(json.loads(text) for text in (patient_text(odd), WORK.text()))
