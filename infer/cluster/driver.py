"""The driver: hands patients to actors, takes their results in any order, gives a lost actor's patients to others."""

import logging
import math
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from infer.bundle.manifest import Manifest
from infer.cluster.actors import ActorState, Suspects
from infer.cluster.places import Place, places
from infer.cluster.scorer import Scorer
from infer.cluster.work import Hello, Refusal, Work, answer_of, hello_of, patient_text
from infer.cohort.patient import Patient, Verdict
from infer.errors import BundleError, DeviceError, LymphoError, UsageError, WorkerError
from infer.reasons import Reason
from infer.scoring.cohort import given_up
from infer.scoring.result import PatientResult

LOG = logging.getLogger("lympho")
MOST_HELD = 32  # patients an actor has in hand: enough for a GPU's batches, few enough for a flat memory
FEWEST_HELD = 2  # one is scored while the next is on its way
SCAN = 1.0  # seconds between looks at the cluster's nodes
BUSY = 60.0  # seconds without an actor after which the log says so
PATIENCE = 120.0  # seconds for a node to come back when none is left
MOST_DEATHS = 5  # deaths of a place's actors, one after the other, before the others do without it
DIED = "two processes ended with this patient in hand: a crash, memory is short, or a node was lost"
ACTOR: type[Scorer] = Scorer


class Driver:
    """A pool of actors. Each is given only a few patients at a time, so memory does not grow with the cohort."""

    def __init__(self, ray: Any, work: Work, manifest: Manifest, threads: int | None, numerics: str) -> None:
        """Create the pool; starts no actor yet.

        Args:
            ray: the module, connected to a cluster.
            threads: processors an actor; None: all of its node.
            numerics: digest of how this process rounds.
        """
        self._ray, self._work, self._manifest = ray, work, manifest
        self._threads, self._numerics = threads, numerics
        self._states: dict[Place, ActorState] = {}
        self._given_up: dict[Place, Refusal] = {}
        self._suspects = Suspects()
        self._waiting: deque[Patient] = deque()
        self._failed: list[Patient] = []
        self._scanned = -math.inf
        self._left = math.inf  # when the last place was seen
        self._of_nodes: dict[tuple[str, str], dict[str, Any]] = {}  # node, rounding -> what run.json says of it
        self._begun: float | None = None  # when the first actor was started; None: once one is there
        self.downgrades: list[str] = []

    def score(self, patients: Iterable[Patient]) -> Generator[tuple[Patient, PatientResult], None, None]:
        """Score patients; yields each once, as they are finished.

        Raises, during iteration:
            WorkerError: no node can score, or none is left.
        """
        self._waiting.extend(patients)
        self._begun = time.monotonic()
        unfinished = len(self._waiting)
        try:
            while unfinished:
                self._look_around()
                self._hand_out()
                for patient, result in (*self._collected(), *self._failures()):
                    unfinished -= 1
                    yield patient, result
        finally:
            for state in self._states.values():
                self._end(state)

    def nodes(self) -> list[dict[str, Any]]:
        """For run.json: every node that took part, and whether it rounds as this process does.

        A node whose actors round in two ways, as two GPUs of different kinds may, is listed twice.
        """
        return list(self._of_nodes.values())

    def _look_around(self) -> None:
        """Start an actor wherever there is a place without one; forget the places of lost nodes."""
        now = time.monotonic()
        if now - self._scanned < SCAN:
            return
        self._scanned = now
        there = places(self._ray.nodes(), self._work.device, self._threads)
        for place in self._states.keys() - set(there):
            self._lose(self._states[place], "its node is lost")
            self._states.pop(place, None)
        for place in there:
            if place not in self._given_up and self._states.setdefault(place, ActorState(place)).actor is None:
                self._start(self._states[place])
        self._check_places(now)

    def _check_places(self, now: float) -> None:
        """Wait for a place if there is none, but not for ever."""
        if self._states:
            self._left = math.inf
            if self._begun is not None and now - self._begun >= BUSY:
                LOG.warning("no actor has started after %.0f seconds: is the cluster busy? See `ray status`", BUSY)
                self._begun = None
            return
        if self._given_up:
            raise _no_place(self._given_up.values())
        self._left = min(self._left, now)
        if now - self._left >= PATIENCE:
            of = f"{self._threads} processors" if self._threads else "a processor"
            raise WorkerError(
                f"no node of the cluster has {'a GPU' if self._work.device == 'cuda' else of}, after {PATIENCE:.0f} "
                "seconds. See `ray status`, and start again: what is finished is kept"
            )

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
        state.greeting = state.actor.hello.remote()

    def _hand_out(self) -> None:
        ready = [state for state in self._states.values() if state.ready]
        several = len({state.place.node for state in ready}) > 1
        for state in ready:
            if self._suspects and not state.held and (suspect := self._suspects.take(state.place.node, several)):
                self._hand(state, suspect)
                state.alone = True
        together = [state for state in ready if not state.alone]
        # Near the end few at a time, so that no actor still has many when the others have none.
        most = min(MOST_HELD, max(FEWEST_HELD, math.ceil(len(self._waiting) / (2 * max(len(together), 1)))))
        for state in together:
            while self._waiting and len(state.held) < most:
                self._hand(state, self._waiting.popleft())

    def _hand(self, state: ActorState, patient: Patient) -> None:
        state.held[state.actor.score.remote(patient_text(patient))] = patient

    def _collected(self) -> Iterator[tuple[Patient, PatientResult]]:
        """What has come in by now; waits a moment if that is nothing."""
        waits = {state.greeting: state for state in self._states.values() if state.greeting is not None}
        waits |= {answer: state for state in self._states.values() for answer in state.held}
        if not waits:
            time.sleep(SCAN / 10)
            return
        found, _ = self._ray.wait(list(waits), num_returns=1, timeout=SCAN)
        if found:
            found, _ = self._ray.wait(list(waits), num_returns=len(waits), timeout=0)
        for reference in found:
            state = waits[reference]
            if reference == state.greeting:
                self._greet(state)
            elif reference in state.held:  # otherwise its actor was lost a moment ago
                yield from self._take(state, reference)

    def _greet(self, state: ActorState) -> None:
        try:
            hello = hello_of(self._ray.get(state.greeting))
        except self._ray.exceptions.RayError:
            self._lose(state, "its process ended at the start")
            return
        self._begun = None
        if isinstance(hello, Refusal):
            self._give_up(state, hello)
            return
        state.greeting, state.hello = None, hello
        key = state.place.node, hello.numerics
        if key not in self._of_nodes:
            self._of_nodes[key] = _record(state.place, hello, hello.numerics == self._numerics)
            _tell(state.name, hello, hello.numerics == self._numerics)
        self._of_nodes[key]["actors_started"] += 1
        self._note(state, hello.downgrades)

    def _take(self, state: ActorState, reference: Any) -> Iterator[tuple[Patient, PatientResult]]:
        try:
            answer = answer_of(self._ray.get(reference))
        except self._ray.exceptions.RayError:
            self._lose(state, "its process ended")
            return
        self._note(state, answer.downgrades)
        if answer.result is None:
            self._lose(state, answer.broken)
            return
        patient = state.held.pop(reference)
        state.alone, state.deaths, state.finished = False, 0, state.finished + 1
        if state.hello:
            self._of_nodes[state.place.node, state.hello.numerics]["patients"] += 1
        yield patient, answer.result

    def _failures(self) -> Iterator[tuple[Patient, PatientResult]]:
        failed, self._failed = self._failed, []
        for patient in failed:
            verdict = Verdict.of(Reason.READING_BROKE_OFF, error=DIED)
            yield patient, given_up(self._work.patients, patient, verdict, self._manifest)

    def _lose(self, state: ActorState, why: str) -> None:
        """An actor is of no more use: others get its patients, and its place another actor."""
        held, started = list(state.held.values()), state.actor is not None
        self._end(state)
        if not started:
            return
        state.deaths += 1
        LOG.warning("%s: an actor is lost, and %d patients are scored elsewhere: %s", state.name, len(held), why)
        for patient in held:
            if not self._suspects.add(patient, state.place.node):
                self._failed.append(patient)
        # A place that has never finished a patient is to blame itself; otherwise it may be the patients.
        if state.deaths >= MOST_DEATHS and (not state.finished or len({one.node for one in self._states}) > 1):
            self._give_up(state, Refusal(f"{MOST_DEATHS} actors were lost one after the other: {why}"))

    def _give_up(self, state: ActorState, refusal: Refusal) -> None:
        """Do without a place."""
        self._end(state)
        LOG.warning("%s: takes no part: %s", state.name, refusal.why)
        self._given_up[state.place] = refusal
        self._states.pop(state.place, None)

    def _end(self, state: ActorState) -> None:
        if state.actor is not None:
            self._ray.kill(state.actor, no_restart=True)
        state.actor = state.greeting = None
        state.held.clear()
        state.alone = False

    def _note(self, state: ActorState, downgrades: Iterable[str]) -> None:
        for downgrade in downgrades:
            if (text := f"{state.name}: {downgrade}") not in self.downgrades:
                self.downgrades.append(text)


def _no_place(refusals: Iterable[Refusal]) -> LymphoError:
    """The error where no place is left: with the code that all reasons have, or the general one."""
    refusals = list(refusals)
    codes = {one.exit_code for one in refusals}
    kind = next((one for one in (UsageError, BundleError, DeviceError) if codes == {one.exit_code}), WorkerError)
    return kind(f"no node of the cluster can score: {'; '.join(sorted({one.why for one in refusals}))}")


def _tell(name: str, hello: Hello, same: bool) -> None:
    LOG.info("%s: %s, %s, %d processors an actor", name, hello.provider, hello.precision, hello.processors)
    if not same:
        LOG.warning("the networks round differently on %s than here: last digits may differ from one machine's", name)


def _record(place: Place, hello: Hello, same: bool) -> dict[str, Any]:
    return {
        "machine": hello.machine,
        "node": place.node,
        "provider": hello.provider,
        "note": hello.note,
        "precision": hello.precision,
        "processors_an_actor": hello.processors,
        "numerics": hello.numerics,
        "same_rounding": same,
        "actors_started": 0,
        "patients": 0,
    }
