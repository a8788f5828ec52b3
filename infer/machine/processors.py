"""How many CPUs and threads this process may use.

The affinity mask is not enough: a container limited to one CPU's time on a host with 64 CPUs still sees all 64. That
limit, a quota, is set in the control groups of the process (https://docs.kernel.org/admin-guide/cgroup-v2.html,
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
GROUPS = Path("sys/fs/cgroup")  # the usual mount point
PATIENCE = 1.0  # seconds for the system to remove ended threads from its list


def available_processors(root: Path = ROOT) -> int:
    """Number of CPUs that this process may use: those of the affinity mask, or its quota if that is less.

    Args:
        root: of the file system that contains /proc and /sys.

    Returns:
        At least 1; fractions are rounded up.
    """
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(seen, quota(root))))


def quota(root: Path = ROOT) -> float:
    """The smallest quota of the process's control groups and their parents, in CPUs; infinite if there is none.

    Args:
        root: of the file system that contains /proc and /sys.
    """
    return min(min(_quota_v2(folder), _quota_v1(folder)) for folder in _folders(root))


def check_threads(number: int) -> None:
    """Check that this many threads can be started in addition to the running ones.

    Raises:
        ThreadError: they cannot be started.
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
    """The folders of the process's control groups and their parents, as far as they are visible here.

    Inside a container, the process may see its group's path on the host. There is no folder of that path then: the
    container's own group is the mount point itself.
    """
    mount = root / GROUPS
    for controllers, path in (("", ()), ("cpu", ()), *_own_groups(root)):
        # Version 1 has a folder per set of controllers; version 2 is used alone or in addition to them.
        for name in (controllers, "cpu", "cpu,cpuacct") if controllers else ("", "unified"):
            yield from ((mount / name).joinpath(*path[:depth]) for depth in range(len(path) + 1))


def _own_groups(root: Path) -> Iterator[tuple[str, Sequence[str]]]:
    """Controllers and path of each group that may limit the process's CPUs; version 2 names no controllers."""
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
    """Both in microseconds, as written in the files. "max", -1 and text that is no number set no limit."""
    try:
        allowed, of = int(time_allowed), int(period)
    except ValueError:
        return math.inf
    return allowed / of if allowed > 0 and of > 0 else math.inf


def _text(path: Path) -> str:
    """The file's text; empty if it is missing or unreadable, which counts as no limit."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):  # ValueError: a path with a NUL byte
        return ""


def _wait_for_the_end(threads: list[threading.Thread]) -> None:
    """Wait until they no longer count: an ended thread may stay on the system's list for a moment."""
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + PATIENCE
    while any(_is_listed(thread) for thread in threads) and time.monotonic() < deadline:
        time.sleep(0.001)


def _is_listed(thread: threading.Thread) -> bool:
    return Path(f"/proc/self/task/{thread.native_id}").exists()
