"""A process that reads and decodes pictures, asked and answered through its pipes.

Threads would take turns at Python's lock for most of the work, so that more processors would decode no faster; and a
picture at which a decoder crashes or hangs ends this process instead of the night. A request is a line of JSON: folder,
names, root, size. The answer is a line of JSON, one [content, colour, pixels, rejection, [errno, text]] a name, and the
crops' bytes.
"""

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import cast

import numpy as np

from infer.errors import WorkerError
from infer.pictures.decode import RejectedImage, try_picture
from infer.pictures.look import Looked, look
from infer.reasons import Reason

READY = b"ready\n"
ATTEMPTS = 2  # at a picture alone, before it is the picture that the process died of
# Not SIGBUS: it comes from a disk that fails, not from a picture.
CRASHES = frozenset({signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})
LIMIT = 300.0  # seconds for an answer: sixteen pictures on a slow share take a few
PATIENCE = 1.0  # seconds for a process that no longer answers to end by itself, so that its exit code is its own
PARENT = Path(__file__).resolve().parents[2]  # where `infer` is found
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from infer.pictures.worker import serve; serve()"


class _DiedError(Exception):
    """The process ended instead of answering, or does not answer any more."""


class StoppedError(Exception):
    """Nobody will ask for the answer any more."""


class DecodingProcess:
    """The other side: starts the process, asks it, and starts another one where it dies."""

    def __init__(self, root: Path, size: int) -> None:
        """Start the process.

        Args:
            root: the cohort's resolved folder.
            size: of the crops.

        Raises:
            WorkerError: it cannot be started.
        """
        self._root, self._size = root, size
        self._stopped = False
        self._process = _start()

    def look(self, folder: Path, names: Sequence[str]) -> list[Looked]:
        """Read and decode pictures of a folder.

        A picture at which the process crashes when asked for it alone, twice, is rejected. Where it ends otherwise, say
        killed because memory is short, or does not answer, that is no matter of the picture, and its patient fails.

        Raises:
            WorkerError: the process died, and another cannot be started.
            StoppedError: `stop` was called.

        After an error nothing more may be asked: an answer might be left in the pipe.
        """
        try:
            return self._ask(folder, names)
        except _DiedError:
            self._start_again()
            return [self._alone(folder, name) for name in names]  # which of them it was

    def stop(self) -> None:
        """End the process under whoever waits for its answer, from another thread."""
        self._stopped = True
        self._process.kill()

    def close(self) -> None:
        """End the process, and wait for it."""
        _end(self._process)

    def _ask(self, folder: Path, names: Sequence[str]) -> list[Looked]:
        requests, answers = cast(BufferedWriter, self._process.stdin), cast(BufferedReader, self._process.stdout)
        try:
            requests.write(json.dumps([str(folder), list(names), str(self._root), self._size]).encode() + b"\n")
            requests.flush()
        except BrokenPipeError as error:
            raise _DiedError from error
        if not select.select([answers], [], [], LIMIT)[0]:
            raise _DiedError
        line = answers.readline()
        if not line.endswith(b"\n"):
            raise _DiedError
        told = json.loads(line)
        good = sum(not (rejection or failure) for *_, rejection, failure in told)
        crops = np.empty((good, self._size, self._size, 3), np.uint8)
        if answers.readinto(crops.data) != crops.nbytes:
            raise _DiedError
        rest = iter(crops)
        return [
            Looked(
                content,
                RejectedImage(rejection) if rejection else OSError(*failure) if failure else next(rest),
                tuple(colour),
                tuple(pixels),
            )
            for content, colour, pixels, rejection, failure in told
        ]

    def _alone(self, folder: Path, name: str) -> Looked:
        for _ in range(ATTEMPTS):
            try:
                return self._ask(folder, [name])[0]
            except _DiedError:
                code = self._start_again()
        content, found = try_picture(folder / name, self._root)
        if isinstance(found, bytes) and -code in CRASHES:
            return Looked(content, RejectedImage(Reason.DECODER_CRASHED.text()))
        return Looked(content, OSError(errno.EIO, f"decoding was cut off again and again, exit code {code}"))

    def _start_again(self) -> int:
        """Returns the exit code of the process that died."""
        if not self._stopped:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        code = _end(self._process)
        if not self._stopped:
            self._process = _start()
        if self._stopped:  # or was, while another was started; `close` ends that
            raise StoppedError
        return code


def _end(process: subprocess.Popen[bytes]) -> int:
    """Returns its exit code; -9 if it had not ended by itself."""
    process.kill()
    with contextlib.suppress(BrokenPipeError), process:  # closes the pipes and waits
        pass
    return process.returncode


def _start() -> subprocess.Popen[bytes]:
    # As this interpreter reads its environment and file names; a name in another encoding would be another file's.
    flags = ["-P", "-X", f"utf8={sys.flags.utf8_mode}", *(["-E"] if sys.flags.ignore_environment else [])]
    try:
        process = subprocess.Popen(
            [sys.executable, *flags, "-c", PROGRAM, str(PARENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # a terminal's Ctrl-C is for the run, which ends this process in good order
        )
    except OSError as error:
        raise _cannot_start(error.strerror) from error
    answers = cast(BufferedReader, process.stdout)
    while line := answers.readline():
        if line == READY:  # after whatever was printed before it
            return process
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    raise _cannot_start(f"it ended at once, exit code {_end(process)}")


def _cannot_start(why: str | None) -> WorkerError:
    return WorkerError(
        f"a decoding process cannot be started ({why}). Use fewer --workers or --threads, raise the limit on processes "
        "(--pids-limit, ulimit -u), or give the run more memory"
    )


def serve() -> None:
    """Answer until the requests end, or whoever asks is gone."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get among the answers
    try:
        answers.write(READY)
        answers.flush()
        for line in requests:
            folder, names, root, size = json.loads(line)
            found = [look(Path(folder, name), Path(root), size) for name in names]
            answers.write(json.dumps([_told(one) for one in found]).encode() + b"\n")
            for one in found:
                if isinstance(one.crop, np.ndarray):
                    answers.write(one.crop.data)
            answers.flush()
    except BrokenPipeError:
        os._exit(1)  # Python would try to write the rest once more, and complain


def _told(
    looked: Looked,
) -> tuple[str, tuple[float, ...], tuple[int, ...], str | None, tuple[int | None, str | None] | None]:
    crop = looked.crop
    rejection = str(crop) if isinstance(crop, RejectedImage) else None
    failure = (crop.errno, crop.strerror) if isinstance(crop, OSError) else None
    return looked.content, looked.colour, looked.pixels, rejection, failure
