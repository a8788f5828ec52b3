"""File names and output in UTF-8, whatever the locale.

Python takes the encoding of file names from the locale. In another than UTF-8 a patient's name in the table, which is
UTF-8, would name another folder or none, and the run would end at the first name that the encoding lacks. In Python's
UTF-8 mode (https://docs.python.org/3/library/os.html#utf8-mode) names are what they are on Linux, bytes: UTF-8, and
whatever is not goes through unchanged. The mode is chosen as Python starts, so Python is started once more.
"""

import codecs
import contextlib
import locale
import os
import sys
from pathlib import Path

ANSWER = ("-X", "utf8")  # before all other options: the first that names the mode counts


def use_utf8() -> None:
    """Replace this process by the same command in UTF-8 mode, unless names and text are in UTF-8 already.

    It stays the same process for whoever started it. To be called first, before anything is opened, imported or said.
    """
    encodings = (sys.getfilesystemencoding(), locale.getencoding())
    in_utf8 = sys.flags.utf8_mode or all(codecs.lookup(name).name == "utf-8" for name in encodings)
    if in_utf8 or not sys.executable or tuple(sys.orig_argv[1:3]) == ANSWER:  # never twice
        return
    executable = os.fsencode(sys.executable)
    with contextlib.suppress(OSError, ValueError):  # then it goes on as it can
        os.execv(executable, [executable, *map(os.fsencode, ANSWER), *_arguments()])


def _arguments() -> list[bytes]:
    """What this process was started with, without the program's own name; as bytes, since not all are text."""
    with contextlib.suppress(OSError):
        given = Path("/proc/self/cmdline").read_bytes().split(b"\0")[1:-1]
        if len(given) == len(sys.orig_argv) - 1:  # else something stands before Python's own command, such as a loader
            return given
    return [os.fsencode(argument) for argument in sys.orig_argv[1:]]  # some encodings do not give back all bytes
