"""Patients who are tried again: an actor died with them in hand, or a node could not read what others may."""

from collections import Counter, deque
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

from infer.cluster.actors import ActorState
from infer.cohort.patient import Patient
from infer.reasons import FAILED, Reason
from infer.scoring.result import PatientResult

MOST_OPEN = 8  # patients of a node whom others have not tried yet: until they have, it gets no new ones
MOST_WRONG = 5  # patients one after the other whom a node could not read, and others could
# What a node may find alone: a share that is gone, a right that is missing, a file that is cut short.
OF_A_NODE = {
    one.code for one in (Reason.UNREADABLE, Reason.EMPTY, Reason.NOT_AN_IMAGE, Reason.DAMAGED, Reason.DECODER_CRASHED)
}
Found = tuple[Patient, PatientResult, ActorState]


@dataclass
class _Record:
    """What has gone wrong with a patient so far."""

    died_on: set[str] = field(default_factory=set)  # nodes
    unread_on: set[str] = field(default_factory=set)  # nodes
    findings: dict[Any, str] = field(default_factory=dict)  # what could not be read -> the node that found it first
    best: Found | None = None  # the try that read most


class Retries:
    """Two kinds of patients. With a suspect in hand an actor died: which of several patients it was shows when each is
    scored alone. Of a doubt a node could not read everything: such a node would fail patients faster than others score
    them.

    A patient does not come back to a node where it went wrong while there is another.
    """

    def __init__(self) -> None:
        self._suspects: deque[Patient] = deque()
        self._doubts: deque[Patient] = deque()
        self._records: dict[int, _Record] = {}  # by line in the table; of unfinished patients alone
        self._dead: list[Patient] = []
        self._open: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()

    @property
    def empty(self) -> bool:
        """Whether nobody is waiting or held against a node."""
        return not (self._suspects or self._doubts or self._records or self._dead or +self._open)

    def died(self, patient: Patient, node: str, *, alone: bool) -> None:
        """An actor died with a patient in hand. If it is the second, and the patient was alone, it has failed."""
        record = self._of(patient)
        if alone and record.died_on:
            self._dead.append(patient)
        else:
            self._suspects.append(patient)
        record.died_on.add(node)

    def unread(self, patient: Patient, result: PatientResult, state: ActorState) -> bool:
        """A node could not read everything of a patient. Returns whether the result counts: another found the same."""
        record, node = self._of(patient), state.place.node
        if node not in record.unread_on:
            record.unread_on.add(node)
            self._open[node] += 1
        if record.findings.setdefault(_what(result), node) != node:
            self.finished(patient)
            return True
        if record.best is None or _readable(result) > _readable(record.best[1]):
            record.best = (patient, result, state)
        self._doubts.append(patient)
        return False

    def read(self, patient: Patient, node: str) -> list[str]:
        """A node has read everything of a patient. Returns the nodes that were wrong too often."""
        self._wrong.pop(node, None)
        wrong = sorted(self.finished(patient) - {node})
        self._wrong.update(wrong)
        return [one for one in wrong if self._wrong[one] >= MOST_WRONG]

    def finished(self, patient: Patient) -> set[str]:
        """A patient has its result. Returns the nodes that could not read it."""
        record = self._records.pop(patient.line, None)
        if record is None:
            return set()
        self._open.subtract(record.unread_on)
        return record.unread_on

    def suspect(self, node: str, nodes: Set[str]) -> Patient | None:
        """The next suspect for a node.

        Args:
            nodes: all that may try.
        """
        for at, patient in enumerate(self._suspects):
            record = self._records[patient.line]
            wrong = record.died_on | record.unread_on
            if node not in wrong or nodes <= wrong:
                del self._suspects[at]
                return patient
        return None

    def doubt(self, node: str) -> Patient | None:
        """The next doubt for a node."""
        for at, patient in enumerate(self._doubts):
            if node not in self._records[patient.line].unread_on:
                del self._doubts[at]
                return patient
        return None

    def untried(self, nodes: Set[str]) -> list[Found]:
        """Doubts whom no node is left to try: of each the try that read most, and its actor."""
        found = []
        for patient in list(self._doubts) if nodes else ():
            record = self._records[patient.line]
            if record.best and nodes <= record.unread_on:
                self._doubts.remove(patient)
                self.finished(patient)
                found.append(record.best)
        return found

    def failed(self) -> list[Patient]:
        """Those with whom an actor has died when they were alone, since the last call."""
        dead, self._dead = self._dead, []
        for patient in dead:
            self.finished(patient)
        return dead

    def holds_up(self, node: str) -> bool:
        """Whether others have still to try too many of a node's patients."""
        return self._open[node] >= MOST_OPEN

    def _of(self, patient: Patient) -> _Record:
        return self._records.setdefault(patient.line, _Record())


def all_read(result: PatientResult) -> bool:
    """Whether nothing in a result may be the fault of the node alone."""
    return result.status != FAILED and not OF_A_NODE & result.image_reasons.keys()


def _what(result: PatientResult) -> Any:
    """What could not be read, to be compared with what another node says."""
    return result.status, result.code, tuple((one.image, one.reason) for one in result.images if one.reason)


def _readable(result: PatientResult) -> tuple[bool, int]:
    return result.status != FAILED, result.used
