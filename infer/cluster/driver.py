"""The driver: hands patients to actors, takes their results in any order, gives a lost actor's patients to others."""

import logging
import math
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from infer.bundle.manifest import Manifest
from infer.cluster.places import Place, places
from infer.cluster.scorer import Scorer
from infer.cluster.seats import Seat, Suspects
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
MOST_FALLS = 5  # deaths of a place's actors, one after the other, before the others do without it
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
        self._seats: dict[Place, Seat] = {}
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
            for seat in self._seats.values():
                self._end(seat)

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
        for place in self._seats.keys() - set(there):
            self._lose(self._seats[place], "its node is lost")
            self._seats.pop(place, None)
        for place in there:
            if place not in self._given_up and self._seats.setdefault(place, Seat(place)).actor is None:
                self._start(self._seats[place])
        self._check_places(now)

    def _check_places(self, now: float) -> None:
        """Wait for a place if there is none, but not for ever."""
        if self._seats:
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

    def _start(self, seat: Seat) -> None:
        place = seat.place
        there = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(place.node, soft=False)
        remote = self._ray.remote(
            num_cpus=place.processors,
            num_gpus=place.gpus,
            max_concurrency=MOST_HELD + 2,
            max_restarts=0,  # the driver starts the next one, and knows whose patient it was
            max_task_retries=0,
            scheduling_strategy=there,
        )(ACTOR)
        seat.actor = remote.remote(self._work.text(), place.processors)
        seat.greeting = seat.actor.hello.remote()

    def _hand_out(self) -> None:
        ready = [seat for seat in self._seats.values() if seat.ready]
        several = len({seat.place.node for seat in ready}) > 1
        for seat in ready:
            if self._suspects and not seat.held and (suspect := self._suspects.take(seat.place.node, several)):
                self._hand(seat, suspect)
                seat.alone = True
        together = [seat for seat in ready if not seat.alone]
        # Near the end few at a time, so that no actor still has many when the others have none.
        most = min(MOST_HELD, max(FEWEST_HELD, math.ceil(len(self._waiting) / (2 * max(len(together), 1)))))
        for seat in together:
            while self._waiting and len(seat.held) < most:
                self._hand(seat, self._waiting.popleft())

    def _hand(self, seat: Seat, patient: Patient) -> None:
        seat.held[seat.actor.score.remote(patient_text(patient))] = patient

    def _collected(self) -> Iterator[tuple[Patient, PatientResult]]:
        """What has come in by now; waits a moment if that is nothing."""
        waits = {seat.greeting: seat for seat in self._seats.values() if seat.greeting is not None}
        waits |= {answer: seat for seat in self._seats.values() for answer in seat.held}
        if not waits:
            time.sleep(SCAN / 10)
            return
        found, _ = self._ray.wait(list(waits), num_returns=1, timeout=SCAN)
        if found:
            found, _ = self._ray.wait(list(waits), num_returns=len(waits), timeout=0)
        for reference in found:
            seat = waits[reference]
            if reference == seat.greeting:
                self._greet(seat)
            elif reference in seat.held:  # otherwise its actor was lost a moment ago
                yield from self._take(seat, reference)

    def _greet(self, seat: Seat) -> None:
        try:
            hello = hello_of(self._ray.get(seat.greeting))
        except self._ray.exceptions.RayError:
            self._lose(seat, "its process ended at the start")
            return
        self._begun = None
        if isinstance(hello, Refusal):
            self._give_up(seat, hello)
            return
        seat.greeting, seat.hello = None, hello
        key = seat.place.node, hello.numerics
        if key not in self._of_nodes:
            self._of_nodes[key] = _record(seat.place, hello, hello.numerics == self._numerics)
            _tell(seat.name, hello, hello.numerics == self._numerics)
        self._of_nodes[key]["actors_started"] += 1
        self._note(seat, hello.downgrades)

    def _take(self, seat: Seat, reference: Any) -> Iterator[tuple[Patient, PatientResult]]:
        try:
            answer = answer_of(self._ray.get(reference))
        except self._ray.exceptions.RayError:
            self._lose(seat, "its process ended")
            return
        self._note(seat, answer.downgrades)
        if answer.result is None:
            self._lose(seat, answer.broken)
            return
        patient = seat.held.pop(reference)
        seat.alone, seat.falls, seat.finished = False, 0, seat.finished + 1
        if seat.hello:
            self._of_nodes[seat.place.node, seat.hello.numerics]["patients"] += 1
        yield patient, answer.result

    def _failures(self) -> Iterator[tuple[Patient, PatientResult]]:
        failed, self._failed = self._failed, []
        for patient in failed:
            verdict = Verdict.of(Reason.READING_BROKE_OFF, error=DIED)
            yield patient, given_up(self._work.patients, patient, verdict, self._manifest)

    def _lose(self, seat: Seat, why: str) -> None:
        """An actor is of no more use: others get its patients, and its place another actor."""
        held, started = list(seat.held.values()), seat.actor is not None
        self._end(seat)
        if not started:
            return
        seat.falls += 1
        LOG.warning("%s: an actor is lost, and %d patients are scored elsewhere: %s", seat.name, len(held), why)
        for patient in held:
            if not self._suspects.add(patient, seat.place.node):
                self._failed.append(patient)
        # A place that has never finished a patient is to blame itself; otherwise it may be the patients.
        if seat.falls >= MOST_FALLS and (not seat.finished or len({one.node for one in self._seats}) > 1):
            self._give_up(seat, Refusal(f"{MOST_FALLS} actors were lost one after the other: {why}"))

    def _give_up(self, seat: Seat, refusal: Refusal) -> None:
        """Do without a place."""
        self._end(seat)
        LOG.warning("%s: takes no part: %s", seat.name, refusal.why)
        self._given_up[seat.place] = refusal
        self._seats.pop(seat.place, None)

    def _end(self, seat: Seat) -> None:
        if seat.actor is not None:
            self._ray.kill(seat.actor, no_restart=True)
        seat.actor = seat.greeting = None
        seat.held.clear()
        seat.alone = False

    def _note(self, seat: Seat, downgrades: Iterable[str]) -> None:
        for downgrade in downgrades:
            if (text := f"{seat.name}: {downgrade}") not in self.downgrades:
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
