"""The cohort as an ordered stream of decoded pictures, some of them decoded ahead."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from enum import Enum
from pathlib import Path

from infer.cohort.patient import Patient
from infer.pictures.look import DecodedPicture
from infer.pictures.pool import DecodingPool
from infer.scoring.bag import Bag, open_bag

CHUNK = 16  # pictures per request: a request and waking a thread cost a good part of one picture's decoding time


class Mark(Enum):
    """The start and the end of a patient in the stream of pictures."""

    OPENED = "opened"
    CLOSED = "closed"


# A mark, or a picture's index in its bag with its result. None: no patient is waiting, so finish those under way.
Event = tuple[Bag, int | Mark, DecodedPicture | None] | None


def decoded(
    folder: Path, patients: Iterable[Patient | None], decoders: DecodingPool, ahead: int, settle: float = 0.0
) -> Iterator[Event]:
    """Patients as events, in order.

    Args:
        folder: of the cohort.
        patients: None where the next one may take long to come.
        ahead: number of pictures decoded before they are needed.
        settle: seconds for which a patient's folder must have been unchanged.
    """
    ahead = max(ahead, 2 * CHUNK * decoders.number)  # so that each process has a current and a next request
    parts: deque[tuple[Bag, Sequence[int | Mark], Future[list[DecodedPicture]] | None]] = deque()
    waiting = 0

    def collected() -> Iterator[Event]:
        nonlocal waiting
        bag, positions, future = parts.popleft()
        waiting -= len(positions)
        for position, looked in zip(positions, future.result() if future else [None], strict=True):
            yield bag, position, looked

    def add(bag: Bag, positions: Sequence[int | Mark], future: Future[list[DecodedPicture]] | None) -> None:
        nonlocal waiting
        parts.append((bag, positions, future))
        waiting += len(positions)

    for patient in patients:
        if patient is None:
            while parts:
                yield from collected()
            yield None
            continue
        bag = open_bag(folder, decoders.root, patient, settle)
        names = [image.image for image in bag.images]
        add(bag, [Mark.OPENED], None)
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            add(bag, range(start, start + len(chunk)), decoders.look(bag.folder, chunk))
            while waiting > ahead:
                yield from collected()
        add(bag, [Mark.CLOSED], None)
        while waiting > ahead:
            yield from collected()
    while parts:
        yield from collected()
