"""A worker process that reads and decodes pictures; requests and answers go through pipes.

Threads would share Python's interpreter lock for most of the work, so more CPUs would not decode faster; and a picture
that makes a decoder crash or hang ends this process instead of the nightly run. A request is a line of JSON: folder,
names, root, size, scale, checked. The answer is a line of JSON, one [content, measures, pixels,
rejection, [errno, text]] per name, followed by the crops' bytes.
"""

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import cast

import numpy as np

from infer.errors import WorkerError
from infer.pictures.decode import RejectedImage, try_picture
from infer.pictures.look import DecodedPicture, look
from infer.reasons import Reason

READY = b"ready\n"
ATTEMPTS = 2  # at a single picture, before it is blamed for the process's death
# Not SIGBUS: it comes from a failing disk, not from a picture.
CRASHES = frozenset({signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})
LIMIT = 300.0  # seconds to wait for an answer: sixteen pictures on a slow share take only a few
PATIENCE = 1.0  # seconds for a process that stopped answering to end by itself, which preserves its exit code
PARENT = Path(__file__).resolve().parents[2]  # the folder that contains the package `infer`
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from infer.pictures.worker import serve; serve()"


class _DiedError(Exception):
    """The process ended instead of answering, or stopped answering."""


class StoppedError(Exception):
    """The pool is closing; the answer is no longer wanted."""


class DecodingProcess:
    """The client side: starts the process, sends requests, and replaces it if it dies."""

    def __init__(self, root: Path, size: int, scale: float = 1.0, checked: bool = True) -> None:
        """Start the process.

        Args:
            root: the cohort's resolved folder.
            size: of the crops, in pixels.
            scale: by which pictures are rescaled before they are cropped.
            checked: as for `infer.pictures.look`.

        Raises:
            WorkerError: it cannot be started.
        """
        self._root, self._size, self._scale, self._checked = root, size, scale, checked
        self._stopped = False
        self._process = _start()

    def look(self, folder: Path, names: Sequence[str]) -> list[DecodedPicture]:
        """Read and decode pictures of a folder.

        A picture is rejected if the process crashes on it twice when it is requested alone. If it ends otherwise,
        e.g. killed because memory is short, or does not answer, the picture is not to blame and its patient fails.

        Raises:
            WorkerError: the process died, and another cannot be started.
            StoppedError: `stop` was called.

        After an error, send no more requests: an answer may be left in the pipe.
        """
        try:
            return self._ask(folder, names)
        except _DiedError:
            self._start_again()
            return [self._alone(folder, name) for name in names]  # to find the picture that caused it

    def stop(self) -> None:
        """End the process while another thread is waiting for its answer."""
        self._stopped = True
        self._process.kill()

    def close(self) -> None:
        """End the process and wait for it."""
        _end(self._process)

    def _ask(self, folder: Path, names: Sequence[str]) -> list[DecodedPicture]:
        requests, answers = cast(BufferedWriter, self._process.stdin), cast(BufferedReader, self._process.stdout)
        try:
            request = [str(folder), list(names), str(self._root), self._size, self._scale, self._checked]
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
        except BrokenPipeError as error:
            raise _DiedError from error
        if not select.select([answers], [], [], LIMIT)[0]:
            raise _DiedError
        line = answers.readline()
        if not line.endswith(b"\n"):
            raise _DiedError
        answer = json.loads(line)
        good = sum(not (rejection or failure) for *_, rejection, failure in answer)
        crops = np.empty((good, self._size, self._size, 3), np.uint8)
        if answers.readinto(crops.data) != crops.nbytes:
            raise _DiedError
        rest = iter(crops)
        return [
            DecodedPicture(
                content,
                RejectedImage(rejection) if rejection else OSError(*failure) if failure else next(rest),
                measures,
                tuple(pixels),
            )
            for content, measures, pixels, rejection, failure in answer
        ]

    def _alone(self, folder: Path, name: str) -> DecodedPicture:
        for _ in range(ATTEMPTS):
            try:
                return self._ask(folder, [name])[0]
            except _DiedError:
                code = self._start_again()
        content, found = try_picture(folder / name, self._root)
        if isinstance(found, bytes) and -code in CRASHES:
            return DecodedPicture(content, RejectedImage(Reason.DECODER_CRASHED.text()))
        why = f"the decoding process ended at this picture more than once, exit code {code}"
        return DecodedPicture(content, OSError(errno.EIO, why))

    def _start_again(self) -> int:
        """Replace a process that died; returns its exit code."""
        if not self._stopped:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        code = _end(self._process)
        if not self._stopped:
            self._process = _start()
        if self._stopped:  # possibly meanwhile; then `close` ends the new process
            raise StoppedError
        return code


def _end(process: subprocess.Popen[bytes]) -> int:
    """Returns the exit code; -9 if the process had not ended by itself."""
    process.kill()
    with contextlib.suppress(BrokenPipeError), process:  # closes the pipes and waits
        pass
    return process.returncode


def _start() -> subprocess.Popen[bytes]:
    # Same handling of variables and file name encoding as in this interpreter, or a name would mean another file.
    flags = ["-P", "-X", f"utf8={sys.flags.utf8_mode}", *(["-E"] if sys.flags.ignore_environment else [])]
    try:
        process = subprocess.Popen(
            [sys.executable, *flags, "-c", PROGRAM, str(PARENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C in a terminal goes to the run only, which ends this process cleanly
        )
    except OSError as error:
        raise _cannot_start(error.strerror) from error
    answers = cast(BufferedReader, process.stdout)
    while line := answers.readline():
        if line == READY:  # skips anything printed before it
            return process
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    raise _cannot_start(f"it ended immediately, exit code {_end(process)}")


def _cannot_start(why: str | None) -> WorkerError:
    return WorkerError(
        f"a decoding process cannot be started ({why}). Use fewer --workers or --threads, raise the limit on processes "
        "(--pids-limit, ulimit -u), or give the run more memory"
    )


def serve() -> None:
    """Answer requests until they end or the client is gone."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get into the answers
    try:
        answers.write(READY)
        answers.flush()
        for line in requests:
            folder, names, root, size, scale, checked = json.loads(line)
            found = [look(Path(folder, name), Path(root), size, scale, checked) for name in names]
            answers.write(json.dumps([_as_answer(one) for one in found]).encode() + b"\n")
            for one in found:
                if isinstance(one.crop, np.ndarray):
                    answers.write(one.crop.data)
            answers.flush()
    except BrokenPipeError:
        os._exit(1)  # avoids Python's second attempt to flush, which would print an error


def _as_answer(
    looked: DecodedPicture,
) -> tuple[str, Mapping[str, float], tuple[int, ...], str | None, tuple[int | None, str | None] | None]:
    crop = looked.crop
    rejection = str(crop) if isinstance(crop, RejectedImage) else None
    failure = (crop.errno, crop.strerror) if isinstance(crop, OSError) else None
    return looked.content, looked.measures, looked.pixels, rejection, failure
