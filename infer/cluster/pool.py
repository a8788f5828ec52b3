"""The pool of actors: started wherever there is a place, waited for, and done without where they cannot be."""

import logging
import math
import socket
import time
from collections.abc import Iterable
from typing import Any

from infer.cluster.actors import ActorState
from infer.cluster.places import Place, places
from infer.cluster.retries import Retries
from infer.cluster.scorer import Scorer
from infer.cluster.work import Hello, Refusal, Work, hello_of
from infer.cohort.patient import Patient
from infer.errors import BundleError, DeviceError, LymphoError, UsageError, WorkerError

LOG = logging.getLogger("lympho")
MOST_HELD = 32  # patients an actor has in hand: enough for a GPU's batches, few enough for a flat memory
SCAN = 1.0  # seconds between looks at the cluster's nodes
BUSY, AGAIN, LONGEST = 60.0, 600.0, 3600.0  # seconds without an actor: the log says so, says so again, the run ends
PATIENCE = 120.0  # seconds for a node to come back when none is left
HEAD_PATIENCE = 20.0  # seconds for the head to answer again; Ray itself ends the process after 60, without a word
PROBE = 2.0  # seconds for one try
MOST_DEATHS = 5  # deaths of a place's actors, one after the other, before the others do without it
RESUMES = "See `ray status`, and start again: what is finished is kept"
ACTOR: type[Scorer] = Scorer


class Pool:
    """All actors of a run, by place."""

    def __init__(self, ray: Any, work: Work, threads: int | None, retries: Retries, head: str = "") -> None:
        """Create the pool; starts no actor yet.

        Args:
            ray: the module, connected to a cluster.
            threads: processors an actor; None: all of its node.
            retries: gets the patients of actors that die.
            head: HOST:PORT of the cluster's head; empty: nobody looks whether it is still there.
        """
        self._ray, self._work, self._threads = ray, work, threads
        self._retries, self._head = retries, head
        self.states: dict[Place, ActorState] = {}
        self._given_up: dict[Place, Refusal] = {}
        self._scanned = -math.inf
        self._idle: float | None = None  # since when no actor is ready
        self._warn_after = BUSY
        self._no_place: float | None = None  # since when there is no place
        self._no_head: float | None = None  # since when the head does not answer
        self._lost_one = False  # whether a node that took part is gone

    @property
    def ready(self) -> list[ActorState]:
        """The actors that take patients."""
        return [state for state in self.states.values() if state.ready]

    @property
    def nodes(self) -> set[str]:
        """The nodes that take patients, or are about to."""
        latest = time.monotonic() - PATIENCE
        return {
            state.place.node
            for state in self.states.values()
            if state.ready or state.started is None or state.started > latest
        }

    def look_around(self) -> None:
        """Start an actor wherever there is a place without one; forget the places of lost nodes.

        Raises:
            LymphoError: no node can score, or none is left.
        """
        now = time.monotonic()
        if now - self._scanned < SCAN:
            return
        self._scanned = now
        if not self._head_answers(now):
            return  # Ray would wait for its answer
        nodes = self._ray.nodes()
        there = places(nodes, self._work.device, self._threads)
        for place in self.states.keys() - set(there):
            self._lost_one |= self.states[place].hello is not None
            self.lose(self.states[place], "its node is lost")
            self.states.pop(place, None)
        alive = {node["NodeID"] for node in nodes if node["Alive"]}
        self._given_up = {place: why for place, why in self._given_up.items() if place.node in alive}
        for place in there:
            if place not in self._given_up and self.states.setdefault(place, ActorState(place)).actor is None:
                self._start(self.states[place])
        self._check(now)

    def greet(self, state: ActorState) -> Hello | None:
        """Take an actor's greeting; None: it takes no part."""
        try:
            hello = hello_of(self._ray.get(state.greeting))
        except self._ray.exceptions.RayError:
            self.lose(state, "its process ended at the start")
            return None
        if isinstance(hello, Refusal):
            self.give_up(state, hello)
            return None
        state.greeting, state.hello, state.starts = None, hello, 0
        return hello

    def lose(self, state: ActorState, why: str) -> None:
        """An actor is of no more use: others get its patients, and its place another actor."""
        started, greeted, alone = state.actor is not None, state.ready, state.alone
        held = self._end(state)
        if not started:
            return
        LOG.warning("%s: an actor is lost, and %d patients are scored elsewhere: %s", state.name, len(held), why)
        for patient in held:
            self._retries.died(patient, state.place.node, alone=alone)
        if greeted:
            state.deaths += 1
        else:
            state.starts += 1
        # A place that has never finished a patient is to blame itself; otherwise it may be the patients.
        to_blame = not state.finished or len({one.node for one in self.states}) > 1
        if state.starts >= MOST_DEATHS or (state.deaths >= MOST_DEATHS and to_blame):
            self.give_up(state, Refusal(f"{MOST_DEATHS} actors were lost one after the other: {why}"))

    def give_up(self, state: ActorState, refusal: Refusal) -> list[Patient]:
        """Do without a place. Returns the patients that its actor had in hand."""
        held = self._end(state)
        LOG.warning("%s: takes no part: %s", state.name, refusal.why)
        self._given_up[state.place] = refusal
        self.states.pop(state.place, None)
        return held

    def give_up_node(self, node: str, refusal: Refusal) -> list[Patient]:
        """Do without all places of a node. Returns the patients that its actors had in hand."""
        of_node = [state for place, state in self.states.items() if place.node == node]
        return [patient for state in of_node for patient in self.give_up(state, refusal)]

    def end(self) -> None:
        """End all actors."""
        for state in self.states.values():
            try:
                self._end(state)
            except Exception as error:  # noqa: BLE001 - it must not hide why the run ends; leaving the cluster ends it, too
                LOG.warning("%s: its actor could not be ended (%s)", state.name, type(error).__name__)

    def _start(self, state: ActorState) -> None:
        place = state.place
        there = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(place.node, soft=False)
        remote = self._ray.remote(
            num_cpus=place.processors,
            num_gpus=place.gpus,
            max_concurrency=MOST_HELD + 2,
            max_restarts=0,  # the driver starts the next one, and knows whose patient it was
            max_task_retries=0,
            scheduling_strategy=there,
        )(ACTOR)
        state.actor = remote.remote(self._work.text(), place.processors)
        state.greeting, state.started = state.actor.hello.remote(), time.monotonic()

    def _end(self, state: ActorState) -> list[Patient]:
        held = list(state.held.values())
        if state.actor is not None:
            self._ray.kill(state.actor, no_restart=True)
        state.actor = state.greeting = state.started = None
        state.held.clear()
        state.alone = False
        return held

    def _head_answers(self, now: float) -> bool:
        if not self._head:
            return True
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), PROBE).close()
        except OSError as error:
            self._no_head = now if self._no_head is None else self._no_head
            if now - self._no_head >= HEAD_PATIENCE:
                raise WorkerError(
                    f"the cluster's head at {self._head} no longer answers ({error}). {RESUMES}"
                ) from error
            return False
        self._no_head = None
        return True

    def _check(self, now: float) -> None:
        """Wait where no actor takes patients, but not for ever."""
        if self.ready:
            self._idle = self._no_place = None
            self._warn_after = BUSY
            return
        self._idle = now if self._idle is None else self._idle
        if not self.states:
            self._wait_for_a_place(now)
            return
        self._no_place = None
        if now - self._idle >= LONGEST:
            raise WorkerError(f"no actor has started in {LONGEST / 60:.0f} minutes: the cluster is busy. {RESUMES}")
        if now - self._idle >= self._warn_after:
            LOG.warning("no actor has started for %.0f s: is the cluster busy? See `ray status`", now - self._idle)
            self._warn_after += AGAIN

    def _wait_for_a_place(self, now: float) -> None:
        if self._given_up and not self._lost_one:
            raise _nobody(self._given_up.values())
        self._no_place = now if self._no_place is None else self._no_place
        if now - self._no_place >= PATIENCE:
            of = f"{self._threads} processors" if self._threads else "a processor"
            raise WorkerError(
                f"for {PATIENCE:.0f} seconds no node of the cluster with "
                f"{'a GPU' if self._work.device == 'cuda' else of} could score. {RESUMES}"
            )


def _nobody(refusals: Iterable[Refusal]) -> LymphoError:
    """The error where no place is left: with the code that all reasons have, or the general one."""
    refusals = list(refusals)
    codes = {one.exit_code for one in refusals}
    kind = next((one for one in (UsageError, BundleError, DeviceError) if codes == {one.exit_code}), WorkerError)
    return kind(f"no node of the cluster can score: {'; '.join(sorted({one.why for one in refusals}))}")
