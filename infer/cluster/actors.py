"""An actor as the driver sees it: where it is, what it said of itself, which patients it has in hand."""

from dataclasses import dataclass, field
from typing import Any

from infer.cluster.places import Place
from infer.cluster.work import Hello
from infer.cohort.patient import Patient


@dataclass
class ActorState:
    """A place with its actor, or with the next one after an actor that died."""

    place: Place
    actor: Any = None  # Ray's handle; None: there is none now
    greeting: Any = None  # reference to the answer that `hello` will give; None: it has come
    hello: Hello | None = None
    held: dict[Any, Patient] = field(default_factory=dict)  # reference to the answer -> patient
    alone: bool = False  # it has a suspect, who is scored alone
    deaths: int = 0  # deaths since it last finished a patient
    finished: int = 0  # patients

    @property
    def ready(self) -> bool:
        """Whether it takes patients."""
        return self.actor is not None and self.greeting is None

    @property
    def name(self) -> str:
        """The node, for people."""
        node = self.place.node[:12]
        return f"{self.hello.machine} ({node})" if self.hello else f"node {node}"


class Suspects:
    """Patients in whose hands an actor died: which of several it was shows when each is scored alone."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Patient, str]] = []  # with the node where it happened
        self._lines: set[int] = set()  # all that have ever been suspects

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, patient: Patient, node: str) -> bool:
        """Add a patient after a death; False: it was the second one, so the patient has failed."""
        if patient.line in self._lines:
            return False
        self._lines.add(patient.line)
        self._waiting.append((patient, node))
        return True

    def take(self, node: str, others: bool) -> Patient | None:
        """The next patient for a node, and not one for whom it died there if there are other nodes."""
        for at, (patient, where) in enumerate(self._waiting):
            if where != node or not others:
                del self._waiting[at]
                return patient
        return None
