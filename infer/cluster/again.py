"""Patients who are scored again: an actor died with them in hand, or a node could not read what others may."""

from collections import Counter, deque

from infer.cohort.patient import Patient

MOST_OPEN = 8  # patients of a node whom others have not tried yet: until they have, it gets no new ones


class _Elsewhere:
    """Patients, each with the node where it went wrong."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Patient, str]] = deque()

    def put(self, patient: Patient, node: str) -> None:
        self._waiting.append((patient, node))

    def take(self, node: str, *, own_too: bool) -> Patient | None:
        """The next patient for a node; one that went wrong there only if that is allowed."""
        for at, (patient, where) in enumerate(self._waiting):
            if own_too or where != node:
                del self._waiting[at]
                return patient
        return None


class Suspects:
    """Patients in whose hands an actor died: which of several it was shows when each is scored alone."""

    def __init__(self) -> None:
        self._waiting = _Elsewhere()
        self._lines: set[int] = set()  # all that have ever been suspects
        self._dead: list[Patient] = []

    def add(self, patient: Patient, node: str) -> None:
        """Add a patient after a death on a node; after the second one it has failed."""
        if patient.line in self._lines:
            self._dead.append(patient)
            return
        self._lines.add(patient.line)
        self._waiting.put(patient, node)

    def take(self, node: str, *, own_too: bool) -> Patient | None:
        """The next patient for a node; one for whom it died there only if that is allowed."""
        return self._waiting.take(node, own_too=own_too)

    def failed(self) -> list[Patient]:
        """Those who have failed since the last call."""
        dead, self._dead = self._dead, []
        return dead


class Doubts:
    """Patients who failed on a node, or of whom it could not read a picture: another tries too.

    A node that cannot read fails patients faster than others score them, so it would soon have had them all.
    """

    def __init__(self) -> None:
        self._waiting = _Elsewhere()
        self._first: dict[int, str] = {}  # line in the table -> node that failed the patient, until another has tried
        self._tried: set[int] = set()  # lines of all that have ever been here
        self._open: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()

    def add(self, patient: Patient, node: str) -> bool:
        """Add a patient after a try on a node; False: it was the second try, whose result counts."""
        if patient.line in self._tried:
            return False
        self._tried.add(patient.line)
        self._first[patient.line] = node
        self._open[node] += 1
        self._waiting.put(patient, node)
        return True

    def take(self, node: str, *, own_too: bool) -> Patient | None:
        """The next patient for a node; one that was tried there only if that is allowed."""
        return self._waiting.take(node, own_too=own_too)

    def settle(self, patient: Patient, good: bool) -> tuple[str, int]:
        """A patient has its result.

        Args:
            good: everything could be read.

        Returns:
            The node that was wrong about it, and how often that one was since it last read everything; or ("", 0).
        """
        node = self._first.pop(patient.line, "")
        if not node:
            return "", 0
        self._open[node] -= 1
        if not good:
            return "", 0
        self._wrong[node] += 1
        return node, self._wrong[node]

    def trust(self, node: str) -> None:
        """A node has read everything of a patient."""
        self._wrong.pop(node, None)

    def holds_up(self, node: str) -> bool:
        """Whether too many of its tries are open."""
        return self._open[node] >= MOST_OPEN
