"""How long the rest takes, from what this run has taken so far on this machine.

Every stage has a cost beforehand: the seconds it would take on the machine that train/cli/costs.py names. That machine
is not this one, so each kind of work has a pace: seconds that it took here for a second beforehand. The stage that is
running has a pace of its own, which soon outweighs that of its kind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FILES, PROCESSOR, DEVICE = "files", "processor", "device"
TRUST = 1.0  # seconds beforehand: a kind's pace is its own once it has done more than that
TRUST_OF_STAGE = 0.02  # the same of a stage, as a share of its cost


@dataclass(frozen=True)
class Stage:
    """A stage and what it is expected to cost."""

    title: str
    kind: str  # FILES, PROCESSOR or DEVICE
    cost: float = 0.0  # seconds beforehand, of the whole stage
    left: float = 1.0  # share of it that no earlier call has finished


@dataclass(frozen=True)
class Paces:
    """Seconds here for a second beforehand, by kind of work."""

    _taken: Mapping[str, float] = field(default_factory=dict)
    _cost: Mapping[str, float] = field(default_factory=dict)

    def after(self, kind: str, taken: float, cost: float) -> "Paces":
        """With work of this kind, of this cost, that took so many seconds; work that costs nothing tells nothing."""
        if cost <= 0:
            return self
        return Paces(
            {**self._taken, kind: self._taken.get(kind, 0.0) + taken},
            {**self._cost, kind: self._cost.get(kind, 0.0) + cost},
        )

    def of(self, kind: str) -> float:
        """The pace of a kind: as the files' before any work of the kind, 1 before any work at all."""
        before = 1.0 if kind == FILES else self.of(FILES)
        return (self._taken.get(kind, 0.0) + TRUST * before) / (self._cost.get(kind, 0.0) + TRUST)

    @property
    def measured(self) -> bool:
        """Whether any work has been measured."""
        return bool(self._cost)


def pace_of_stage(stage: Stage, pace: float, taken: float, done: float) -> float:
    """The pace of a running stage.

    Args:
        stage: the stage.
        pace: that of its kind.
        taken: seconds it has taken so far.
        done: share of the stage that was done in them.
    """
    trust = TRUST_OF_STAGE * stage.cost + 0.1
    return (taken + trust * pace) / (done * stage.cost + trust)


def seconds_of(stages: Sequence[Stage], paces: Paces) -> float:
    """Seconds that stages which have not begun will take."""
    return sum(paces.of(stage.kind) * stage.cost * stage.left for stage in stages)
