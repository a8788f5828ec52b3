"""The networks as used for scoring: several batches in parallel, in the fastest precision that works on this machine.

If a device or a precision fails, the engine switches to its fallback.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from infer.bundle.load import Bundle
from infer.engine.networks import ROWS, Images, Networks, Seen, joined
from infer.engine.self_test import self_test
from infer.engine.sessions import CPU, CUDA, Device
from infer.errors import BundleError, DeviceError, DeviceMemoryError
from infer.machine.processors import check_threads
from infer.members.member import Floats, Member, Opinion, Precision

# Small batches fit a CPU's caches and need the least memory: 8 pictures per batch are as fast as 32.
BATCH_SIZES = {CPU: 8, CUDA: 256}
# The default precision of a device, if the bundle has it. float16 is not used on GPUs: with cuDNN's fast kernels a
# picture's features then depend on its place in the batch, and a run from files to CSV is no faster.
FASTEST: dict[str, Precision] = {CPU: "int8", CUDA: "float32"}
MOST_CALLERS = 16  # threads; each needs memory for the feature maps of its batch

Found = TypeVar("Found")


class Engine:
    """Networks that several threads may use, and that are replaced as a whole if the device fails.

    If the self-test fails in a device's fastest precision, the fallback is float32. A GPU with too little memory gets
    smaller batches. If a GPU fails, the fallback is the CPU in float32 if the device may move, otherwise an error.
    Every fallback is recorded in `downgrades`.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        batch_size: int | None,
        processors: int,
        precision: Precision | None = None,
    ) -> None:
        """Load and check the graphs.

        Args:
            batch_size: pictures; None for the device's default.
            processors: CPUs for the graphs.
            precision: None for the device's default; float32 if the bundle does not have it.

        Raises:
            BundleError: a graph's inputs or outputs are not those that this program expects.
            DeviceError: the device cannot run them and there is no fallback.
            ThreadError: the threads that this needs cannot be started.
        """
        self.batch_size = batch_size or BATCH_SIZES[device.provider]
        self.downgrades: list[str] = []  # for run.json
        self.processors = processors
        # Parallel batches on few threads each are faster than consecutive batches on many threads: at the end of every
        # layer, the threads wait for the slowest of them. A GPU processes one batch at a time.
        self.callers = 1 if device.provider == CUDA else min(processors, MOST_CALLERS)
        self._threads = max(1, processors // self.callers)
        self._bundle = bundle
        self._switching = threading.Lock()
        fastest = precision or FASTEST[device.provider]
        self._networks = self._load(device, fastest if bundle.manifest.reduced(fastest) else "float32")
        # The callers and one thread that waits for pictures. Checked now, while an earlier run's results still exist.
        check_threads(self.callers + 1)

    def __str__(self) -> str:
        return str(self._networks)

    @property
    def members(self) -> tuple[Member[Any], ...]:
        """The bundle's members."""
        return self._networks.members

    @property
    def device(self) -> Device:
        """The device that the networks run on now."""
        return self._networks.device

    @property
    def precision(self) -> Precision:
        """The current precision of the networks that take pictures, or of some of them."""
        return self._networks.precision

    @property
    def nodes(self) -> dict[str, int]:
        """Nodes of the graphs by the provider that runs them."""
        return self._networks.nodes

    @property
    def batch_size_now(self) -> int:
        """The current batch size, after any downgrades."""
        return self._networks.batch_size

    def run_self_test(self) -> str:
        """Run the self-test; if it fails, switch from a reduced precision to float32, and from a GPU to the CPU.

        Returns the digest from `self_test`.

        Raises:
            BundleError: as for `self_test`.
            DeviceError: the device failed and there is no fallback.
        """
        while True:
            device, precision = self.device, self.precision
            error = None
            try:
                digest = self_test(self, self._bundle)
            except BundleError as failure:
                error = failure
            if (self.device, self.precision) != (device, precision):
                continue  # a fallback during the test mixed two devices' outputs: verdict and digest are meaningless
            if error is None:
                return digest
            if precision != "float32":
                self._networks = self._in_float32(device, precision, error)
            elif device.may_move:
                self._networks = self._on_the_cpu(device, str(error))
            else:
                raise error

    def score_pictures(self, images: Images, clinical: Floats) -> Seen:
        """Score pictures: (N, 112, 112, 3) uint8 and their patients' clinical values (N, 3).

        Up to `callers` threads may call this in parallel.

        Raises:
            DeviceError: the device failed and there is no fallback.
        """
        parts: list[Seen] = []
        done = 0

        def next_part(networks: Networks) -> tuple[Seen, int]:
            end = min(done + networks.batch_size, len(images))
            return networks.score_pictures(images[done:end], clinical[done:end]), end

        while done < len(images):
            part, done = self._retry(next_part)
            parts.append(part)
        return joined(parts)

    def score_patient(self, sums: Mapping[str, Any], clinical: Floats) -> dict[str, Opinion]:
        """Like `Networks.score_patient`.

        Raises:
            DeviceError: the device failed and there is no fallback.
        """
        return self._retry(lambda networks: networks.score_patient(sums, clinical))

    def _load(self, device: Device, precision: Precision) -> Networks:
        try:
            return Networks(self._bundle, device, self.batch_size, self._threads, precision)
        except (BundleError, DeviceError) as error:
            if precision != "float32":
                return self._in_float32(device, precision, error)
            if not (device.may_move and isinstance(error, DeviceError)):
                raise
            return self._on_the_cpu(device, str(error))

    def _in_float32(self, device: Device, precision: Precision, why: BundleError | DeviceError) -> Networks:
        self.downgrades.append(f"float32 instead of {precision}: {why}")
        return self._load(device, "float32")

    def _retry(self, work: Callable[[Networks], Found]) -> Found:
        """Run `work` with the current networks; after a failure, switch to the fallback and repeat."""
        while True:
            networks = self._networks
            try:
                return work(networks)
            except DeviceError as error:
                self._switch(networks, error)

    def _switch(self, networks: Networks, error: DeviceError) -> None:
        """Replace networks that failed, unless another thread has already done so."""
        with self._switching:
            if self._networks is not networks:
                return
            if isinstance(error, DeviceMemoryError) and networks.batch_size > ROWS:
                smaller = max(ROWS, networks.batch_size // 2 // ROWS * ROWS)
                self.downgrades.append(f"batches of {smaller} instead of {self.batch_size}: {error}")
                self._networks = networks.with_batches_of(smaller)
            elif networks.device.may_move:
                self._networks = self._on_the_cpu(networks.device, str(error))
            else:
                raise error

    def _on_the_cpu(self, device: Device, why: str) -> Networks:
        """Self-tested networks on the CPU, with its default batch size: the GPU's may not fit into memory."""
        self.downgrades.append(f"moved from {device.provider} to {CPU}: {why}")
        networks = Networks(
            self._bundle, Device(CPU, f"{device.note}, then fell back to the CPU"), BATCH_SIZES[CPU], self._threads
        )
        self_test(networks, self._bundle)
        return networks
