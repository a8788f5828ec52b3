"""Joining a Ray cluster, or starting one on this machine that no other can reach."""

import contextlib
import importlib.util
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infer.cluster.signals import Signals
from infer.errors import LymphoError, UsageError, WorkerError
from infer.machine.processors import available_processors

LOG = logging.getLogger("lympho")
LOCAL = "local"
AUTO = "auto"
PATIENCE = 10.0  # seconds for a connection to the cluster's head
HEALTH = 30.0  # seconds for the head to say that it is one; Ray itself would try for ever
STORE = 256 << 20  # bytes, for results on their way; Ray would take 30% of the memory
SESSIONS = "/tmp"  # as Ray: the names of its sockets must be short
AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
NO_REPORT = {"RAY_USAGE_STATS_ENABLED": "0"}  # Ray's statistics of use: no data may leave a hospital
# Ray listens to the loopback device alone where this is 0, on Linux as elsewhere; an address of 127.0.0.1 would not do.
NOT_BEYOND_THIS_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
MOST_PORTS = 65535


def check_ray(address: str) -> None:
    """Check the option, and that Ray is installed; imports nothing.

    Raises:
        UsageError: the address is none, or Ray is missing.
    """
    if address.startswith("ray://"):
        raise UsageError(f"--ray {address}: Ray's client port is not used. Give the head's own address, HOST:6379")
    whole = re.fullmatch(r"([\w.-]+|\[[\da-fA-F:]+\]):(\d{1,5})", address, re.ASCII)
    if address not in (AUTO, LOCAL) and not (whole and 0 < int(whole[2]) <= MOST_PORTS):
        raise UsageError(f"--ray {address}: must be auto, local or the address of the cluster's head, HOST:PORT")
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "--ray: Ray is not installed. Install infer/requirements-ray.txt, or use the image lympho-infer:ray"
        )


@contextlib.contextmanager
def joined(address: str) -> Iterator[Any]:
    """Join the cluster for the block; gives the module `ray`. Afterwards all actors that the block started are gone.

    Raises:
        WorkerError: there is no cluster at this address, or not yet.
        UsageError: it asks for another token.
    """
    with contextlib.ExitStack() as ends:
        how = _local(ends.enter_context(_session_folder())) if address == LOCAL else {"address": address}
        os.environ.update(NO_REPORT)  # before the import, which reads it
        if address != LOCAL:
            _check_answers(address)
        import ray
        import ray.util.scheduling_strategies

        signals = ends.enter_context(Signals())
        ends.callback(ray.shutdown)
        try:
            # Nothing that actors print comes here: the log is written by the driver alone.
            ray.init(**how, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise _not_joined(address, str(error).partition("\n")[0]) from error
        except SystemExit as end:
            signals.rays(end)
            raise
        finally:
            signals.set()
        if os.environ.get(AUTH_MODE) != "token":  # Ray has set it if it found a token
            LOG.warning(
                "this cluster asks for no token: whoever reaches its ports can run programs on it. Set %s=token",
                AUTH_MODE,
            )
        yield ray


def _local(folder: str) -> dict[str, Any]:
    """How a cluster of this machine's own is started, with its files in a folder."""
    # A token that only this process and those it starts know. No dashboard: it is a part of ray[default] besides.
    token = os.environ.get(AUTH_TOKEN) or secrets.token_hex(32)  # Ray reads it once in a process
    os.environ.update({**NOT_BEYOND_THIS_MACHINE, AUTH_MODE: "token", AUTH_TOKEN: token})
    # Ray opens the folder that it is given to everybody: so one below it.
    return {
        "address": LOCAL,
        "include_dashboard": False,
        "num_cpus": available_processors(),
        "object_store_memory": STORE,
        "_temp_dir": str(Path(folder) / "ray"),
    }


@contextlib.contextmanager
def _session_folder() -> Iterator[str]:
    """A folder that only this user can enter, removed at the end."""
    try:
        made = tempfile.TemporaryDirectory(prefix="lympho-ray-", dir=SESSIONS, ignore_cleanup_errors=True)
    except OSError as error:
        raise _not_joined(LOCAL, f"{SESSIONS} cannot be written ({error.strerror})") from error
    with made as folder:
        yield folder


def _check_answers(address: str) -> None:
    """Make sure that a cluster's head is there. In a process of its own: Ray would not come back from a silent server.

    Raises:
        WorkerError, UsageError: as `joined`.
    """
    where: list[str] = []
    if address != AUTO:
        where = ["--address", address]
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
        except OSError as error:
            raise _not_joined(address, f"nothing answers there ({error})") from error
    line = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *where]
    try:
        done = subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=HEALTH, check=False)
    except subprocess.TimeoutExpired as error:
        raise _not_joined(address, f"no head of a cluster answers within {HEALTH:.0f} seconds") from error
    if done.returncode:
        raise _not_joined(address, (done.stderr.strip() or "unhealthy").splitlines()[-1])


def _not_joined(address: str, why: str) -> LymphoError:
    if "AuthenticationError" in why or "InvalidAuthToken" in why:
        return UsageError(f"--ray {address}: the cluster asks for a token. Set {AUTH_MODE}=token and its {AUTH_TOKEN}")
    if address == LOCAL:
        return WorkerError(f"--ray {LOCAL}: no cluster can be started: {why.rstrip('.')}")
    hint = "" if address == AUTO else "Is it the address that `ray start --head` printed? "
    return WorkerError(f"--ray {address}: no cluster can be joined: {why.rstrip('.')}. {hint}See `ray status`")
