"""How many processors and threads this process may use.

The affinity mask alone does not tell: a container that may use one processor's time of a host with 64 still sees 64.
That limit, a quota, stands in the control groups of the process (https://docs.kernel.org/admin-guide/cgroup-v2.html,
cpu.max; in version 1 cpu.cfs_quota_us and cpu.cfs_period_us).
"""

import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from infer.errors import ThreadError

ROOT = Path("/")
GROUPS = Path("sys/fs/cgroup")  # where all systems mount them
PATIENCE = 1.0  # seconds for threads that have ended to be taken off the system's lists


def available_processors(root: Path = ROOT) -> int:
    """Processors whose time this process may use: those of the affinity mask, or its quota if that is less.

    Args:
        root: of the file system in which /proc and /sys are looked for.

    Returns:
        At least 1; half a processor counts as one, and one and a half as two.
    """
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(seen, quota(root))))


def quota(root: Path = ROOT) -> float:
    """The smallest quota of the process's control groups and all above them, in processors; infinite if there is none.

    Args:
        root: of the file system in which /proc and /sys are looked for.
    """
    return min(min(_quota_v2(folder), _quota_v1(folder)) for folder in _folders(root))


def check_threads(number: int) -> None:
    """See whether so many threads can be started beside those that run now.

    Raises:
        ThreadError: they cannot.
    """
    enough = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(number):
            thread = threading.Thread(target=enough.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise ThreadError(str(error)) from error
    finally:
        enough.set()
        _wait_for_the_end(started)


def _folders(root: Path) -> Iterator[Path]:
    """The folders of the process's control groups and of all above them, as far as they can be seen here.

    Inside a container the process may be told its group's path on the host. The folder of that path is not there then:
    the container's own group is the mount itself.
    """
    mount = root / GROUPS
    for controllers, path in (("", ()), ("cpu", ()), *_own_groups(root)):
        # Version 1 has a folder for each set of controllers; version 2 stands alone or beside them.
        for name in (controllers, "cpu", "cpu,cpuacct") if controllers else ("", "unified"):
            yield from ((mount / name).joinpath(*path[:depth]) for depth in range(len(path) + 1))


def _own_groups(root: Path) -> Iterator[tuple[str, Sequence[str]]]:
    """Controllers and path of each group that may limit the process's processors; version 2 names no controllers."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, name = rest.partition(":")
        path = [part for part in name.split("/") if part]
        if colon and ".." not in path and (not controllers or "cpu" in controllers.split(",")):
            yield controllers, path


def _quota_v2(folder: Path) -> float:
    return _processors(*_text(folder / "cpu.max").split()[:2])


def _quota_v1(folder: Path) -> float:
    return _processors(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _processors(time_allowed: str = "", period: str = "100000") -> float:
    """Both in microseconds, as they stand in the files. "max", -1 and whatever is no number set no limit."""
    try:
        allowed, of = int(time_allowed), int(period)
    except ValueError:
        return math.inf
    return allowed / of if allowed > 0 and of > 0 else math.inf


def _text(path: Path) -> str:
    """Empty where there is no such file or it cannot be read: then nothing is known, and nothing is limited."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):  # ValueError: a name with a zero byte in it
        return ""


def _wait_for_the_end(threads: list[threading.Thread]) -> None:
    """Until they no longer count: a thread that Python has seen end may still be on the system's list for a moment."""
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + PATIENCE
    while any(_is_listed(thread) for thread in threads) and time.monotonic() < deadline:
        time.sleep(0.001)


def _is_listed(thread: threading.Thread) -> bool:
    return Path(f"/proc/self/task/{thread.native_id}").exists()
