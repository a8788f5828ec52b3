"""onnxruntime sessions that check which provider they really got.

If a CUDA library is missing or the GPU is full, onnxruntime creates a CPU session without an error, and
get_available_providers() still lists CUDA. Only the first provider of the created session is reliable.
"""

import ctypes
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime  # only in this module; infer/__init__.py has already switched off its telemetry

from infer.errors import BundleError, DeviceError, DeviceMemoryError, ThreadError
from infer.machine.processors import check_threads

ONNXRUNTIME_VERSION: str = onnxruntime.__version__
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
# One fixed algorithm and no TF32: the same picture must give the same number every time.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
# The expensive operators. onnxruntime deliberately puts a few nodes that compute shapes on the CPU, but never these.
HEAVY = frozenset({"Conv", "Gemm", "MatMul", "MaxPool"})
NO_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
HOST_NAME = re.compile(r"\s*;?\s*hostname=\S+")  # run.json may leave the hospital; host names should not
NO_FOLDER = "/dev/null/none"  # cannot exist
NO_THREAD = re.compile(r"pthread_create failed.*error msg: ([^\n]*)")  # onnxruntime's message


@dataclass(frozen=True)
class Device:
    """The device that runs the graphs, and why it was chosen."""

    provider: str
    note: str  # for run.json
    may_move: bool = False  # to the CPU if the device fails: auto was requested


def choose_device(asked: str, probe: bytes) -> Device:
    """The device for `auto`, `cuda` or `cpu`, verified by creating a session.

    Args:
        probe: any graph of the bundle.

    Raises:
        DeviceError: cuda was requested, but a session does not run there.
    """
    if asked == "cpu":
        return Device(CPU, "cpu requested")
    problem = _cuda_problem(probe)
    if problem is None:
        return Device(CUDA, f"{asked} requested, CUDA found", may_move=asked == "auto")
    if asked == "cuda":
        raise DeviceError(f"--device cuda: {problem}. Use --device cpu or auto, or repair the driver")
    return Device(CPU, f"auto requested, CUDA not used: {problem}")


class Graph:
    """One graph of the bundle, ready to run on one provider."""

    def __init__(self, name: str, data: bytes, device: Device, threads: int) -> None:
        """Load a graph.

        Raises:
            BundleError: onnxruntime cannot load it.
            ThreadError: its threads cannot be started.
            DeviceError: the graph, or an expensive node of it, runs on another provider than the device's.
        """
        self.name = name
        self._provider = device.provider
        self._session = _session(name, data, device.provider, threads)
        got = self._session.get_providers()[0]
        if got != device.provider:
            raise DeviceError(f"{name}: runs on {got} instead of {device.provider}. Use --device cpu")
        self.nodes = check_nodes(name, _placed(self._session), device.provider)
        self.inputs = {value.name: (value.type, tuple(value.shape)) for value in self._session.get_inputs()}
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, **inputs: Any) -> dict[str, npt.NDArray[np.float32]]:
        """All outputs by name.

        Args:
            inputs: by name; arrays, or results of `shared`.

        Raises:
            DeviceMemoryError: a GPU has too little memory for this batch.
            DeviceError: a GPU failed.
        """
        try:
            outputs = self._session.run(None, inputs)
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            if self._provider == CPU:
                raise _memory_error(self.name, error) or error from error
            raise _device_error(self.name, self._provider, error) from error
        return dict(zip(self.outputs, outputs, strict=True))


def shared(device: Device, array: npt.NDArray[Any]) -> Any:
    """An input of several graphs, copied to a GPU only once.

    Raises:
        DeviceMemoryError: the GPU has too little memory for it.
        DeviceError: the GPU failed.
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
        DeviceError: an expensive node is on another provider, which the session itself does not report.
    """
    nodes = list(nodes)
    elsewhere = Counter(
        f"{operator} on {placed}" for placed, operator in nodes if placed != provider and operator in HEAVY
    )
    if elsewhere:
        what = ", ".join(f"{count} {where}" for where, count in sorted(elsewhere.items()))
        raise DeviceError(f"{name}: not all of it runs on {provider}: {what}. Use --device cpu")
    return Counter(placed for placed, _ in nodes)


def _session(name: str, data: bytes, provider: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only; failures are also raised as exceptions
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Weights in external files have no checksum, and would be searched for in the current folder.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NO_FOLDER)
    # Each graph has its own threads; if they spin after a run, they take CPU time from the next graph's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [(CUDA, CUDA_OPTIONS)] if provider == CUDA else []
    check_threads(threads - 1)  # onnxruntime hangs if it can start only some of its threads
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[*providers, CPU])
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        if refused := NO_THREAD.search(str(error)):
            raise ThreadError(refused[1]) from error
        if provider != CPU:  # if the graph itself is bad, loading it on the CPU will tell
            raise _device_error(name, provider, error) from error
        if short := _memory_error(name, error):
            raise short from error
        raise BundleError(f"{name}: onnxruntime cannot load this graph ({error}). Export the bundle again") from error
    session.disable_fallback()  # otherwise a failed run is repeated on the CPU, with only a printed message
    return session


def _memory_error(name: str, error: Exception) -> MemoryError | None:
    """The error for a shortage of main memory, which is the fault of neither the device nor the bundle."""
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
        return "onnxruntime fell back to the CPU: a CUDA library is missing, or the GPU has no memory left"
    return None


def _cuda_devices() -> int:
    """Number of devices known to the driver. Checked first because onnxruntime would print its failure."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value
