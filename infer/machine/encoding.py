"""File names and output in UTF-8, whatever the locale.

Python takes the encoding of file names from the locale. If that is not UTF-8, a patient's name in the table, which is
UTF-8, would name another folder or none, and the run would fail at the first name that cannot be encoded. In Python's
UTF-8 mode (https://docs.python.org/3/library/os.html#utf8-mode), names are handled as Linux does, as bytes: UTF-8 is
decoded, anything else passes through unchanged. The mode is set when Python starts, so Python is restarted.
"""

import codecs
import contextlib
import locale
import os
import sys
from pathlib import Path

ANSWER = ("-X", "utf8")  # before all other options: the first setting of the mode wins


def use_utf8() -> None:
    """Replace this process by the same command in UTF-8 mode, unless names and text already use UTF-8.

    The process ID stays the same. Call this first, before anything is opened, imported or printed.
    """
    encodings = (sys.getfilesystemencoding(), locale.getencoding())
    in_utf8 = sys.flags.utf8_mode or all(codecs.lookup(name).name == "utf-8" for name in encodings)
    if in_utf8 or not sys.executable or tuple(sys.orig_argv[1:3]) == ANSWER:  # never twice
        return
    executable = os.fsencode(sys.executable)
    with contextlib.suppress(OSError, ValueError):  # then the run continues with the locale's encoding
        os.execv(executable, [executable, *map(os.fsencode, ANSWER), *_arguments()])


def _arguments() -> list[bytes]:
    """This process's arguments without the program name; as bytes, since not all are valid text."""
    with contextlib.suppress(OSError):
        given = Path("/proc/self/cmdline").read_bytes().split(b"\0")[1:-1]
        if len(given) == len(sys.orig_argv) - 1:  # otherwise something precedes Python's own command, e.g. a loader
            return given
    return [os.fsencode(argument) for argument in sys.orig_argv[1:]]  # some encodings do not restore all bytes
