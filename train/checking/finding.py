"""What a check finds: how serious it is, what it is, whom it concerns, what to do."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

MOST_NAMED = 5  # patients or files named within a sentence


class Severity(enum.Enum):
    """How serious a finding is; the value is its title."""

    CORRECT = "To correct before training"
    LOOK = "To look at"
    FINE = "For information"


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    severity: Severity
    topic: str  # classes, rows, pictures, ...: a word or two
    what: str  # sentences without the last full stop
    todo: str = ""  # sentences; empty where there is nothing to do
    concerned: tuple[str, ...] = ()  # rows, patients or files, each with what is wrong with it


def correct(topic: str, what: str, todo: str, concerned: Sequence[str] = ()) -> Finding:
    """A finding that stops a training."""
    return Finding(Severity.CORRECT, topic, what, todo, tuple(concerned))


def look(topic: str, what: str, todo: str, concerned: Sequence[str] = ()) -> Finding:
    """A finding that somebody has to judge."""
    return Finding(Severity.LOOK, topic, what, todo, tuple(concerned))


def fine(topic: str, what: str, todo: str = "", concerned: Sequence[str] = ()) -> Finding:
    """A finding that is only said."""
    return Finding(Severity.FINE, topic, what, todo, tuple(concerned))


def named(names: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"


def counted(number: int, what: str) -> str:
    """The number and its noun: 1 patient, 2 patients."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
