"""The driver: hands patients to actors, takes their results in any order, and has them scored again where need be."""

import logging
import math
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from infer.bundle.manifest import Manifest
from infer.cluster.actors import ActorState
from infer.cluster.nodes import NodeRecords
from infer.cluster.pool import MOST_HELD, SCAN, Pool
from infer.cluster.retries import MOST_WRONG, Retries, all_read
from infer.cluster.work import Answer, Refusal, Work, answer_of, patient_text
from infer.cohort.patient import Patient, Verdict
from infer.reasons import Reason
from infer.scoring.cohort import given_up
from infer.scoring.result import PatientResult

LOG = logging.getLogger("lympho")
FEWEST_HELD = 2  # one is scored while the next is on its way
DIED = "two processes ended with this patient in hand: a crash, memory is short, or a node was lost"
Scored = tuple[Patient, PatientResult]


class Driver:
    """Gives each actor only a few patients at a time, so memory does not grow with the cohort."""

    def __init__(
        self, ray: Any, work: Work, manifest: Manifest, threads: int | None, numerics: str, head: str = ""
    ) -> None:
        """Create the driver; starts no actor yet.

        Args:
            ray: the module, connected to a cluster.
            threads: processors an actor; None: all of its node.
            numerics: digest of how this process rounds.
            head: HOST:PORT of the cluster's head; empty: nobody looks whether it is still there.
        """
        self._ray, self._work, self._manifest = ray, work, manifest
        self.retries = Retries()
        self._pool = Pool(ray, work, threads, self.retries, head)
        self._records = NodeRecords(numerics)
        self._waiting: deque[Patient] = deque()
        self.downgrades: list[str] = []

    def score(self, patients: Iterable[Patient]) -> Generator[Scored, None, None]:
        """Score patients; yields each once, as they are finished.

        Raises, during iteration:
            LymphoError: no node can score, or none is left.
        """
        self._waiting.extend(patients)
        unfinished = len(self._waiting)
        try:
            while unfinished:
                self._pool.look_around()
                self._hand_out()
                for patient, result in (*self._collected(), *self._untried(), *self._failures()):
                    unfinished -= 1
                    yield patient, result
        finally:
            self._pool.end()

    def nodes(self) -> list[dict[str, Any]]:
        """For run.json: every node that took part, and whether it rounds as this process does."""
        return self._records.all()

    def _hand_out(self) -> None:
        ready, nodes = self._pool.ready, self._pool.nodes
        several = len({state.place.node for state in ready}) > 1
        for state in ready:
            suspect = None if state.held else self.retries.suspect(state.place.node, nodes)
            if suspect:
                self._hand(state, suspect)
                state.alone = True
        together = [state for state in ready if not state.alone]
        # Near the end few at a time, so that no actor still has many when the others have none.
        most = min(MOST_HELD, max(FEWEST_HELD, math.ceil(len(self._waiting) / (2 * max(len(together), 1)))))
        for state in together:
            while len(state.held) < most and (patient := self._next(state.place.node, several)):
                self._hand(state, patient)

    def _next(self, node: str, several: bool) -> Patient | None:
        """The next patient for a node: one of whom another could not read everything, or a new one."""
        if doubt := self.retries.doubt(node):
            return doubt
        if not self._waiting or (several and self.retries.holds_up(node)):
            return None
        return self._waiting.popleft()

    def _hand(self, state: ActorState, patient: Patient) -> None:
        state.held[state.actor.score.remote(patient_text(patient))] = patient

    def _collected(self) -> Iterator[Scored]:
        """What has come in by now; waits a moment if that is nothing."""
        waits = {state.greeting: state for state in self._pool.states.values() if state.greeting is not None}
        waits |= {answer: state for state in self._pool.states.values() for answer in state.held}
        if not waits:
            time.sleep(SCAN / 10)
            return
        found, _ = self._ray.wait(list(waits), num_returns=1, timeout=SCAN)
        if found:
            found, _ = self._ray.wait(list(waits), num_returns=len(waits), timeout=0)
        lost: list[tuple[ActorState, str]] = []
        for reference in found:
            state = waits[reference]
            if reference == state.greeting:
                self._greet(state)
            elif reference in state.held:  # otherwise its actor was done without a moment ago
                answer = self._answer(reference)
                self._note(state, answer.downgrades)
                if answer.result is None:
                    lost.append((state, answer.broken))
                else:
                    yield from self._take(state, reference, answer.result)
        for state, why in lost:  # last: what an actor had finished by then is a result
            self._pool.lose(state, why)

    def _greet(self, state: ActorState) -> None:
        if hello := self._pool.greet(state):
            self._note(state, (*hello.downgrades, *self._records.greeted(state, hello)))

    def _answer(self, reference: Any) -> Answer:
        """An actor's answer, also where it has died."""
        try:
            return answer_of(self._ray.get(reference))
        except self._ray.exceptions.RayError:
            return Answer(broken="its process ended")

    def _take(self, state: ActorState, reference: Any, result: PatientResult) -> Iterator[Scored]:
        """Take a result; one for which something could not be read there only after other nodes have tried."""
        patient, node = state.held.pop(reference), state.place.node
        state.alone, state.deaths, state.finished = False, 0, state.finished + 1
        if patient.verdict is not None:  # nothing was read for it
            self.retries.finished(patient)
        elif all_read(result):
            for wrong in self.retries.read(patient, node):
                self._do_without(wrong)
        elif not self.retries.unread(patient, result, state):
            return
        self._records.finished(state)
        yield patient, result

    def _do_without(self, node: str) -> None:
        why = f"{MOST_WRONG} patients in a row could not be read on this node, but on others. Can it read PATIENTS?"
        self._waiting.extendleft(self._pool.give_up_node(node, Refusal(why)))

    def _untried(self) -> Iterator[Scored]:
        """Patients whom no other node is left to try."""
        for patient, result, state in self.retries.untried(self._pool.nodes):
            self._records.finished(state)
            yield patient, result

    def _failures(self) -> Iterator[Scored]:
        for patient in self.retries.failed():
            verdict = Verdict.of(Reason.READING_BROKE_OFF, error=DIED)
            yield patient, given_up(self._work.patients, patient, verdict, self._manifest)

    def _note(self, state: ActorState, downgrades: Iterable[str]) -> None:
        for downgrade in downgrades:
            if (text := f"{state.name}: {downgrade}") not in self.downgrades:
                self.downgrades.append(text)
