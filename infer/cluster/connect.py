"""Joining a Ray cluster, or starting one on this machine that no other can reach."""

import contextlib
import importlib.util
import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from typing import Any

from infer.errors import UsageError
from infer.machine.processors import available_processors

LOCAL = "local"
AUTO = "auto"
LOOPBACK = "127.0.0.1"  # with it as a node's address, Ray listens to this machine alone
PATIENCE = 10.0  # seconds for the cluster's head to answer; Ray itself would try for minutes


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
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no data may leave a hospital
    import ray

    how: dict[str, Any] = {"address": address}
    if address == LOCAL:
        # The dashboard is not installed either: it comes with ray[default].
        how |= {"include_dashboard": False, "_node_ip_address": LOOPBACK, "num_cpus": available_processors()}
    elif address != AUTO:
        _check_answers(address)
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        # Nothing that actors print comes here: logs of ours are written by the driver alone.
        ray.init(**how, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        first = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(
            f"--ray {address}: no cluster can be joined: {first}. See `ray start` and `ray status`"
        ) from error
    finally:
        for one, handler in handlers.items():  # Ray's own handler would end the run with another exit code
            with contextlib.suppress(ValueError):  # not in the main thread, where Ray sets none either
                signal.signal(one, handler)
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
