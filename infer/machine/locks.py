"""Locks on files between runs: the kernel releases one however the process ends.

flock, not a process ID in a file: in every container, the first process has the same ID.
"""

import fcntl
import time

MODE = 0o640  # of every file that a run writes, less what the umask takes away: they contain patients' data
PAUSE = 0.05  # seconds between two attempts


def locked_within(descriptor: int, patience: float) -> bool:
    """Whether an open file could be locked.

    Args:
        patience: seconds to wait while another process holds it.

    Raises:
        OSError: its file system does not support locks.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(PAUSE)
        else:
            return True
