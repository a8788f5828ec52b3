"""Joining a Ray cluster, or starting one on this machine that no other can reach."""

import contextlib
import importlib.util
import logging
import os
import re
import secrets
import signal
import socket
from collections.abc import Iterator
from typing import Any

from infer.errors import UsageError
from infer.machine.processors import available_processors

LOG = logging.getLogger("lympho")
LOCAL = "local"
AUTO = "auto"
PATIENCE = 10.0  # seconds for the cluster's head to answer; Ray itself would try for minutes
STORE = 256 << 20  # bytes, for results on their way; Ray would take 30% of the memory
AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
NO_REPORT = {"RAY_USAGE_STATS_ENABLED": "0"}  # Ray's statistics of use: no data may leave a hospital
# Ray listens to the loopback device alone where this is 0, on Linux as elsewhere; an address of 127.0.0.1 would not do.
NOT_BEYOND_THIS_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def check_ray(address: str) -> None:
    """Check the option, and that Ray is installed; imports nothing.

    Raises:
        UsageError: the address is none, or Ray is missing.
    """
    if address.startswith("ray://"):
        raise UsageError(f"--ray {address}: Ray's client port is not used. Give the head's own address, HOST:6379")
    if address not in (AUTO, LOCAL) and not re.fullmatch(
        r"[\w.-]+:\d{1,5}|\[[\da-fA-F:]+\]:\d{1,5}", address, re.ASCII
    ):
        raise UsageError(f"--ray {address}: must be auto, local or the address of the cluster's head, HOST:PORT")
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "--ray: Ray is not installed. Install infer/requirements-ray.txt, or use the image lympho-infer:ray"
        )


@contextlib.contextmanager
def joined(address: str) -> Iterator[Any]:
    """Join the cluster for the block; gives the module `ray`. Afterwards all actors that the block started are gone.

    Raises:
        UsageError: there is no cluster at this address.
    """
    how: dict[str, Any] = {"address": address}
    settings = NO_REPORT
    if address == LOCAL:
        # A token that only this process and those it starts know. No dashboard: it is a part of ray[default] besides.
        token = os.environ.get(AUTH_TOKEN) or secrets.token_hex(32)  # Ray reads it once in a process
        settings = {**NO_REPORT, **NOT_BEYOND_THIS_MACHINE, AUTH_MODE: "token", AUTH_TOKEN: token}
        how |= {"include_dashboard": False, "num_cpus": available_processors(), "object_store_memory": STORE}
    elif address != AUTO:
        _check_answers(address)
    os.environ.update(settings)  # before the import, which reads them
    import ray
    import ray.util.scheduling_strategies

    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        # Nothing that actors print comes here: the log is written by the driver alone.
        ray.init(**how, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        ray.shutdown()
        first = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(
            f"--ray {address}: no cluster can be joined: {first}. See `ray start` and `ray status`"
        ) from error
    finally:
        for one, handler in handlers.items():  # Ray's own handler would end the run with another exit code
            with contextlib.suppress(ValueError):  # not in the main thread, where Ray sets none either
                signal.signal(one, handler)
    if os.environ.get(AUTH_MODE) != "token":  # Ray has set it if it found a token
        LOG.warning(
            "this cluster asks for no token: whoever reaches its ports can run programs on it. Set %s=token",
            AUTH_MODE,
        )
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--ray {address}: nothing answers there ({error}). Is it the address that `ray start --head` printed?"
        ) from error
