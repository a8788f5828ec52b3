"""The cohort as a stream of decoded pictures, in order, some ahead of the reader."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from enum import Enum

from infer.cohort.patient import Cohort
from infer.pictures.look import Looked
from infer.pictures.pool import DecodingPool
from infer.scoring.patient import Bag, open_bag

CHUNK = 16  # pictures a request: asking, and waking a thread, takes a good part of a picture's time


class Mark(Enum):
    """Where a patient begins and ends in the stream of pictures."""

    OPENED = "opened"
    CLOSED = "closed"


# A mark, or a picture's place in its bag with what came of it.
Event = tuple[Bag, int | Mark, Looked | None]


def decoded(cohort: Cohort, decoders: DecodingPool, ahead: int, settle: float = 0.0) -> Iterator[Event]:
    """The cohort as events, in order.

    Args:
        ahead: pictures that are decoded before the reader asks for them.
        settle: seconds that a patient's folder must have been left alone.
    """
    ahead = max(ahead, 2 * CHUNK * decoders.number)  # so that each process has something to do, and something to come
    parts: deque[tuple[Bag, Sequence[int | Mark], Future[list[Looked]] | None]] = deque()
    waiting = 0

    def settled() -> Iterator[Event]:
        nonlocal waiting
        bag, positions, future = parts.popleft()
        waiting -= len(positions)
        for position, looked in zip(positions, future.result() if future else [None], strict=True):
            yield bag, position, looked

    def add(bag: Bag, positions: Sequence[int | Mark], future: Future[list[Looked]] | None) -> None:
        nonlocal waiting
        parts.append((bag, positions, future))
        waiting += len(positions)

    for patient in cohort.patients:
        bag = open_bag(cohort.folder, decoders.root, patient, settle)
        names = [image.image for image in bag.images]
        add(bag, [Mark.OPENED], None)
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            add(bag, range(start, start + len(chunk)), decoders.look(bag.folder, chunk))
            while waiting > ahead:
                yield from settled()
        add(bag, [Mark.CLOSED], None)
        while waiting > ahead:
            yield from settled()
    while parts:
        yield from settled()
