"""Patients who are scored again: an actor died with them in hand, or a node failed them that may be at fault itself."""

from collections import Counter, deque

from infer.cohort.patient import Patient

MOST_OPEN = 8  # failures of a node that others have not tried yet: until they have, it gets no new patients


class Suspects:
    """Patients in whose hands an actor died: which of several it was shows when each is scored alone."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Patient, str]] = []  # with the node where it happened
        self._lines: set[int] = set()  # all that have ever been suspects
        self._dead: list[Patient] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, patient: Patient, node: str) -> None:
        """Add a patient after a death; after the second one it has failed."""
        if patient.line in self._lines:
            self._dead.append(patient)
            return
        self._lines.add(patient.line)
        self._waiting.append((patient, node))

    def take(self, node: str, others: bool) -> Patient | None:
        """The next patient for a node, and not one for whom it died there if there are other nodes."""
        for at, (patient, where) in enumerate(self._waiting):
            if where != node or not others:
                del self._waiting[at]
                return patient
        return None

    def failed(self) -> list[Patient]:
        """Those who have failed since the last call."""
        dead, self._dead = self._dead, []
        return dead


class Doubts:
    """Patients who failed on a node: another one tries, since a share may be gone there alone.

    A node that cannot read fails patients faster than others score them, so it would soon have had them all.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Patient, str]] = deque()
        self._first: dict[int, str] = {}  # line in the table -> node that failed the patient, until another has tried
        self._tried: set[int] = set()  # lines of all that have ever failed
        self._open: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()

    def add(self, patient: Patient, node: str) -> bool:
        """Add a patient who failed on a node; False: it was the second time, so the patient has failed."""
        if patient.line in self._tried:
            return False
        self._tried.add(patient.line)
        self._first[patient.line] = node
        self._open[node] += 1
        self._waiting.append((patient, node))
        return True

    def take(self, node: str, others: bool) -> Patient | None:
        """The next patient for a node, and not one that failed there if there are other nodes."""
        for at, (patient, where) in enumerate(self._waiting):
            if where != node or not others:
                del self._waiting[at]
                return patient
        return None

    def settle(self, patient: Patient, scored: bool) -> tuple[str, int]:
        """A patient has its result.

        Args:
            scored: it has not failed again.

        Returns:
            The node that was wrong about it, and how often that one was since it last scored a patient; or ("", 0).
        """
        node = self._first.pop(patient.line, "")
        if not node:
            return "", 0
        self._open[node] -= 1
        if not scored:
            return "", 0
        self._wrong[node] += 1
        return node, self._wrong[node]

    def trust(self, node: str) -> None:
        """A node has scored a patient."""
        self._wrong.pop(node, None)

    def holds_up(self, node: str) -> bool:
        """Whether too many of its failures are open."""
        return self._open[node] >= MOST_OPEN
