"""The cohort as a stream of decoded pictures, in order, some ahead of the reader: by processes, side by side."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from queue import Empty, SimpleQueue

from infer.cohort.patients import Cohort
from infer.errors import WorkerError
from infer.pictures.look import Looked
from infer.pictures.worker import Decoder, StoppedError
from infer.scoring.patient import Bag, open_bag

CHUNK = 16  # pictures a request: asking, and waking a thread, takes a good part of a picture's time


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
        self.root, self.number = root, number
        self._size = size
        self._closing = False
        self._counting = threading.Lock()
        self._starting = 0
        self._alive: list[Decoder] = []
        self._idle: SimpleQueue[Decoder | None] = SimpleQueue()  # None: one was lost, or it is over
        self._pool = ThreadPoolExecutor(number, thread_name_prefix="decode")

    def look(self, folder: Path, names: Sequence[str]) -> Future[list[Looked]]:
        """Read and decode pictures of a folder.

        Raises, as the future's:
            WorkerError: no process can be started.
        """
        return self._pool.submit(self._look, folder, names)

    def close(self) -> None:
        """End all processes, without waiting for pictures that nobody will ask for."""
        self._closing = True
        for decoder in list(self._alive):
            decoder.stop()
        for _ in range(self.number):
            self._idle.put(None)
        self._pool.shutdown(cancel_futures=True)
        for decoder in self._alive:
            decoder.close()

    def _look(self, folder: Path, names: Sequence[str]) -> list[Looked]:
        decoder = self._take()
        try:
            found = decoder.look(folder, names)
        except BaseException:  # an answer may be left in its pipe, which the next request would get
            with self._counting:
                self._alive.remove(decoder)
            self._idle.put(None)
            decoder.close()
            raise
        self._idle.put(decoder)
        return found

    def _take(self) -> Decoder:
        while not self._closing:
            try:
                decoder = self._idle.get_nowait()
            except Empty:
                decoder = self._one_more()
            if decoder and not self._closing:  # else `close` may not have seen it yet, and ends it at last
                return decoder
        raise StoppedError

    def _one_more(self) -> Decoder | None:
        """A new process; where none can be started, the next that becomes idle, or None if one was lost."""
        with self._counting:
            self._starting += 1
        try:
            decoder = Decoder(self.root, self._size)
        except WorkerError:
            with self._counting:
                self._starting -= 1
                alone = not self._starting and not self._alive
            if alone:
                self._idle.put(None)  # whoever waits finds out as well
                raise
            return self._idle.get()
        with self._counting:
            self._starting -= 1
            self._alive.append(decoder)
        return decoder


def decoded(cohort: Cohort, decoders: Decoders, ahead: int, settle: float = 0.0) -> Iterator[Event]:
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
