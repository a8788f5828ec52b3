"""A pool of decoding processes, each with a thread that waits for its answers."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

from infer.errors import WorkerError
from infer.pictures.look import DecodedPicture
from infer.pictures.worker import DecodingProcess, StoppedError

MOST_WORKERS = 16  # processes by default; a limit because each may hold a picture of 25 million pixels


class DecodingPool:
    """A pool of decoding processes, started on demand, and a thread pool that waits for their answers."""

    def __init__(self, root: Path, size: int, number: int, scale: float = 1.0, checked: bool = True) -> None:
        """Create the pool; starts no process yet.

        Args:
            root: the cohort's resolved folder.
            size: of the crops, in pixels.
            scale: by which pictures are rescaled before they are cropped.
            checked: as for `infer.pictures.look`.
        """
        self.root, self.number = root, number
        self._size, self._scale, self._checked = size, scale, checked
        self._closing = False
        self._counting = threading.Lock()
        self._starting = 0
        self._alive: list[DecodingProcess] = []
        self._idle: SimpleQueue[DecodingProcess | None] = (
            SimpleQueue()
        )  # None: a process was lost, or the pool is closing
        self._pool = ThreadPoolExecutor(number, thread_name_prefix="decode")

    def look(self, folder: Path, names: Sequence[str]) -> Future[list[DecodedPicture]]:
        """Read and decode pictures of a folder.

        Raises, through the future:
            WorkerError: no process can be started.
        """
        return self._pool.submit(self._look, folder, names)

    def close(self) -> None:
        """End all processes, without waiting for pending requests."""
        self._closing = True
        for decoder in list(self._alive):
            decoder.stop()
        for _ in range(self.number):
            self._idle.put(None)
        self._pool.shutdown(cancel_futures=True)
        for decoder in self._alive:
            decoder.close()

    def _look(self, folder: Path, names: Sequence[str]) -> list[DecodedPicture]:
        decoder = self._take()
        try:
            found = decoder.look(folder, names)
        except BaseException:  # an unread answer may be left in its pipe, and the next request would get it
            with self._counting:
                self._alive.remove(decoder)
            self._idle.put(None)
            decoder.close()
            raise
        self._idle.put(decoder)
        return found

    def _take(self) -> DecodingProcess:
        while not self._closing:
            try:
                decoder = self._idle.get_nowait()
            except Empty:
                decoder = self._one_more()
            if decoder and not self._closing:  # otherwise `close` will end it
                return decoder
        raise StoppedError

    def _one_more(self) -> DecodingProcess | None:
        """A new process; if none can be started, the next idle one, or None if one was lost."""
        with self._counting:
            self._starting += 1
        try:
            decoder = DecodingProcess(self.root, self._size, self._scale, self._checked)
        except WorkerError:
            with self._counting:
                self._starting -= 1
                alone = not self._starting and not self._alive
            if alone:
                self._idle.put(None)  # so that other waiting threads notice as well
                raise
            return self._idle.get()
        with self._counting:
            self._starting -= 1
            self._alive.append(decoder)
        return decoder
