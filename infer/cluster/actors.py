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
    started: float | None = None  # when the actor was started; None: it will be in a moment
    alone: bool = False  # it has a suspect, who is scored alone
    deaths: int = 0  # deaths since it last finished a patient
    starts: int = 0  # deaths before a greeting, since the last greeting
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
