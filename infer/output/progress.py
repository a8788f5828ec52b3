"""Shows the progress of a run: one updated line on a terminal, otherwise an occasional log line."""

import contextlib
import logging
import sys
import time

from infer.machine.times import about

LOG = logging.getLogger("lympho")
TERMINAL_SECONDS = 0.2
LOG_SECONDS = 30.0


class Progress:
    """Number of finished patients, pictures per second, and the time left."""

    def __init__(self, patients: int) -> None:
        self._patients, self._done, self._images = patients, 0, 0
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._start = self._shown = time.monotonic()

    def advance(self, images: int) -> None:
        """Count one finished patient with this many pictures."""
        self._done, self._images = self._done + 1, self._images + images
        now = time.monotonic()
        last = self._done == self._patients
        if not last and now - self._shown < (TERMINAL_SECONDS if self._terminal else LOG_SECONDS):
            return
        self._shown = now
        speed = self._images / max(now - self._start, 1e-9)
        text = f"{self._done} of {self._patients} patients, {self._images} pictures, {speed:.0f} pictures/s"
        if not last:
            text += f", {about((now - self._start) / self._done * (self._patients - self._done))} left"
        if self._terminal:
            with contextlib.suppress(OSError):  # a closed terminal is no reason to stop
                sys.stderr.write(f"\r{text}\x1b[K" + ("\n" if last else ""))
                sys.stderr.flush()
        else:
            LOG.info(text)
