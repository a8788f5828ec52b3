"""onnxruntime sessions that know which provider they really got.

A missing CUDA library gives a CPU session without an error, and get_available_providers() goes on listing CUDA. Only
the session's own first provider, after it was made, tells.
"""

import ctypes
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime  # here alone; infer/__init__.py has switched its telemetry off by now

from infer.errors import BundleError, DeviceError, DeviceMemoryError, ThreadError
from infer.machine.processors import check_threads

ONNXRUNTIME_VERSION: str = onnxruntime.__version__
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
# One fixed algorithm and no TF32: the same picture has to give the same number tomorrow.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
# What takes the time. A few nodes that compute shapes are put on the processor on purpose; these never.
HEAVY = frozenset({"Conv", "Gemm", "MatMul", "MaxPool"})
NO_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
HOST_NAME = re.compile(r"\s*;?\s*hostname=\S+")  # run.json may leave the hospital, its machines' names need not
NO_FOLDER = "/dev/null/none"  # cannot exist
NO_THREAD = re.compile(r"pthread_create failed.*error msg: ([^\n]*)")  # onnxruntime's text


@dataclass(frozen=True)
class Device:
    """Where graphs run, and why there."""

    provider: str
    note: str  # for run.json
    may_move: bool = False  # to the processor, if it gives up: auto was asked for


def choose_device(asked: str, probe: bytes) -> Device:
    """The provider for `auto`, `cuda` or `cpu`, proven by a session on a graph.

    Args:
        probe: any graph of the bundle.

    Raises:
        DeviceError: cuda was asked for and a session does not end up there.
    """
    if asked == "cpu":
        return Device(CPU, "cpu asked for")
    problem = _cuda_problem(probe)
    if problem is None:
        return Device(CUDA, f"{asked} asked for, cuda found", may_move=asked == "auto")
    if asked == "cuda":
        raise DeviceError(f"--device cuda: {problem}. Use --device cpu or auto, or repair the driver")
    return Device(CPU, f"auto asked for, cuda not used: {problem}")


class Graph:
    """One graph of the bundle, ready to run on one provider."""

    def __init__(
        self, name: str, data: bytes, device: Device, threads: int, weights: tuple[str, bytes] | None = None
    ) -> None:
        """Load a graph.

        Args:
            weights: name and bytes of another graph, in which this one's weights stand.

        Raises:
            BundleError: onnxruntime does not take it.
            ThreadError: its threads cannot be started.
            DeviceError: it, or a node of it that takes time, ended up on another provider than the device's.
        """
        self.name = name
        self._provider = device.provider
        self._session = _session(name, data, device.provider, threads, weights)
        got = self._session.get_providers()[0]
        if got != device.provider:
            raise DeviceError(f"{name}: runs on {got} instead of {device.provider}")
        self.nodes = check_nodes(name, _placed(self._session), device.provider)
        self.inputs = {value.name: (value.type, tuple(value.shape)) for value in self._session.get_inputs()}
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, **inputs: Any) -> dict[str, npt.NDArray[np.float32]]:
        """All outputs by name.

        Args:
            inputs: by name; arrays, or what `shared` made of them.

        Raises:
            DeviceMemoryError: a GPU has too little memory for this batch.
            DeviceError: a GPU gave up.
        """
        try:
            outputs = self._session.run(None, inputs)
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            if self._provider == CPU:
                raise _memory_error(self.name, error) or error from error
            raise _device_error(self.name, self._provider, error) from error
        return dict(zip(self.outputs, outputs, strict=True))


def shared(device: Device, array: npt.NDArray[Any]) -> Any:
    """An input of several graphs: copied to a GPU once, instead of once for each of them.

    Raises:
        DeviceMemoryError: the GPU has no room for it.
        DeviceError: the GPU gave up.
    """
    if device.provider == CPU:
        return array
    try:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise _device_error("the pictures", device.provider, error) from error


def check_nodes(name: str, nodes: Iterable[tuple[str, str]], provider: str) -> Counter[str]:
    """Count a graph's nodes by provider.

    Args:
        nodes: provider and operator of each.

    Raises:
        DeviceError: one that takes time is not on the provider asked for. The session alone does not tell.
    """
    nodes = list(nodes)
    elsewhere = Counter(
        f"{operator} on {placed}" for placed, operator in nodes if placed != provider and operator in HEAVY
    )
    if elsewhere:
        what = ", ".join(f"{count} {where}" for where, count in sorted(elsewhere.items()))
        raise DeviceError(f"{name}: not all of it runs on {provider}: {what}")
    return Counter(placed for placed, _ in nodes)


def _session(
    name: str, data: bytes, provider: str, threads: int, weights: tuple[str, bytes] | None = None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; what matters comes back as an exception
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Weights in files have no checksum, and would be looked for where the program was started.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NO_FOLDER)
    if weights:
        options.add_external_initializers_from_files_in_memory([weights[0]], [weights[1]], [len(weights[1])])
    # Each graph has threads of its own; left to spin after a run, they take the processors from the next graph's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [(CUDA, CUDA_OPTIONS)] if provider == CUDA else []
    check_threads(threads - 1)  # where it can start some of its own and not all, onnxruntime waits for ever
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[*providers, CPU])
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        if refused := NO_THREAD.search(str(error)):
            raise ThreadError(refused[1]) from error
        if provider != CPU:  # it loads on the processor, or says there that it does not
            raise _device_error(name, provider, error) from error
        if short := _memory_error(name, error):
            raise short from error
        raise BundleError(f"{name}: onnxruntime cannot load this graph ({error}). Export the bundle again") from error
    session.disable_fallback()  # else a failed run is tried again on the CPU, announced by a print
    return session


def _memory_error(name: str, error: Exception) -> MemoryError | None:
    """What a processor's shortage of memory is, which is no matter of the device or the bundle."""
    return MemoryError(f"for {name}") if _is_of_memory(error) else None


def _is_of_memory(error: Exception) -> bool:
    return any(sign in str(error).lower() for sign in NO_MEMORY)


def _device_error(what: str, provider: str, error: Exception) -> DeviceError:
    kind = DeviceMemoryError if _is_of_memory(error) else DeviceError
    first_line = HOST_NAME.sub("", str(error).partition("\n")[0])
    return kind(f"{what}: failed on {provider}: {first_line}. Use a smaller --batch-size or --device cpu")


def _placed(session: onnxruntime.InferenceSession) -> list[tuple[str, str]]:
    """Provider and operator of every node."""
    return [
        (part.ep_name, node.op_type)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def _cuda_problem(probe: bytes) -> str | None:
    """Why CUDA cannot be used, or None."""
    if CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA"
    if not _cuda_devices():
        return "no CUDA driver or device"
    onnxruntime.preload_dlls()
    try:
        got = _session("the probe graph", probe, CUDA, 1).get_providers()[0]
    except DeviceError as error:
        return str(error)
    if got != CUDA:
        return "a CUDA library is missing, onnxruntime fell back to the CPU"
    return None


def _cuda_devices() -> int:
    """Devices the driver knows. Asked before onnxruntime, which would write its failure to the terminal."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value
