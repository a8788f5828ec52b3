"""A signal's exit code, which Ray would change."""

import contextlib
import signal
from typing import Any

BY_SIGNAL = 128  # an exit code less the signal's number


class Signals:
    """A signal ends the block with this program's code, also where Ray makes another of it.

    Ray sets a handler of its own when it is initialised, and turns an exit in one of its calls into SystemExit(1) or
    another error.
    """

    NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._before: dict[int, Any] = {number: signal.getsignal(number) for number in self.NUMBERS}
        self._sent: int | None = None

    def __enter__(self) -> "Signals":
        self.set()
        return self

    def set(self) -> None:
        """Set our handlers, again where Ray has set its own; not after a signal."""
        for number in self.NUMBERS if self._sent is None else ():
            if callable(self._before[number]):  # else it is ignored
                _set(number, self._handle)

    def rays(self, end: SystemExit) -> None:
        """Ray's own handler has ended the block: go on as if it had been ours."""
        if self._sent is None and end.code == signal.SIGTERM:
            with contextlib.suppress(SystemExit):
                self._handle(signal.SIGTERM, None)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._sent is not None and isinstance(error, Exception | SystemExit):
            raise SystemExit(BY_SIGNAL + self._sent) from error
        for number in self.NUMBERS if self._sent is None else ():
            _set(number, self._before[number])

    def _handle(self, number: int, frame: Any) -> None:
        self._sent = number
        for one in self.NUMBERS:
            _set(one, self._before[one])
        self._before[number](number, frame)  # sets what a second signal does


def _set(number: int, handler: Any) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread, where Ray sets none either
        signal.signal(number, handler)
