"""What long work reports: the steps of a loop. Where nobody follows it, this costs nothing and says nothing.

Loops inside one another need not know of each other: a step of the inner one is a part of a step of the outer one.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Follower(Protocol):
    """Who is told of the steps."""

    def begin(self, name: str, number: int, more: float, before: int) -> int:
        """A loop begins; returns its depth, which its steps name."""

    def step(self, depth: int, done: int) -> None:
        """So many steps of the loop at this depth are done."""

    def skip(self) -> None:
        """The step that is being done costs nothing: it had been finished by an earlier call."""


_FOLLOWER: ContextVar[Follower | None] = ContextVar("follower", default=None)


@contextmanager
def followed_by(follower: Follower) -> Iterator[None]:
    """Report every loop inside the block."""
    token = _FOLLOWER.set(follower)
    try:
        yield
    finally:
        _FOLLOWER.reset(token)


def is_followed() -> bool:
    """Whether somebody says how far the work is, so that the work itself can be quieter."""
    return _FOLLOWER.get() is not None


def steps(
    items: Iterable[Item], name: str, *, number: int | None = None, before: int = 0, more: float = 0
) -> Iterator[Item]:
    """The items, each reported as a step of about equal cost once it is done.

    Args:
        items: what the loop is over.
        name: of one step, for people.
        number: of items, if `items` does not tell.
        before: steps that an earlier call has done; they cost nothing.
        more: what follows after the loop, as a multiple of one step.
    """
    follower = _FOLLOWER.get()
    if follower is None:
        yield from items
        return
    if number is None:
        items = items if isinstance(items, Sequence) else list(items)
        number = len(items)
    depth = follower.begin(name, before + number, more, before)
    for index, item in enumerate(items):
        yield item
        follower.step(depth, before + index + 1)


def skipped() -> None:
    """Say that the present step was finished by an earlier call and costs nothing."""
    follower = _FOLLOWER.get()
    if follower is not None:
        follower.skip()
