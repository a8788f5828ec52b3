"""The cohort as a stream of decoded pictures, in order, some ahead of the reader: by processes, side by side."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from pathlib import Path

from infer.bag import Bag, open_bag
from infer.cohort import Cohort
from infer.decoder import Decoder
from infer.looking import Looked

CHUNK = 16  # pictures a request: one by one, half of the time would go into asking


class Mark(Enum):
    """Where a patient begins and ends in the stream of pictures."""

    OPENED = "opened"
    CLOSED = "closed"


# A mark, or a picture's place in its bag with what came of it.
Event = tuple[Bag, int | Mark, Looked | None]


class Decoders:
    """Decoding processes, each started when there is first something for it to do, and a thread that waits for each."""

    def __init__(self, root: Path, size: int, number: int) -> None:
        """No process yet.

        Args:
            root: the cohort's resolved folder.
            size: of the crops.
        """
        self.number = number
        self._root, self._size = root, size
        self._idle: list[Decoder] = []
        self._pool = ThreadPoolExecutor(number, thread_name_prefix="decode")

    def look(self, folder: Path, names: Sequence[str]) -> Future[list[Looked]]:
        """Read and decode pictures of a folder.

        Raises, as the future's:
            WorkerError: a process cannot be started.
        """
        return self._pool.submit(self._look, folder, names)

    def close(self) -> None:
        """End all processes, without waiting for pictures that nobody will ask for."""
        self._pool.shutdown(cancel_futures=True)
        for decoder in self._idle:
            decoder.close()

    def _look(self, folder: Path, names: Sequence[str]) -> list[Looked]:
        try:
            decoder = self._idle.pop()
        except IndexError:
            decoder = Decoder(self._root, self._size)
        try:
            return decoder.look(folder, names)
        finally:
            self._idle.append(decoder)


def decoded(cohort: Cohort, decoders: Decoders, ahead: int) -> Iterator[Event]:
    """The cohort as events, in order.

    Args:
        ahead: pictures that are decoded before the reader asks for them.
    """
    root = cohort.folder.resolve()
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
        bag = open_bag(cohort.folder, root, patient)
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
