"""The networks as scoring uses them: several batches side by side, in the fastest precision that works here.

Where a device or a precision fails, its fallback takes over.
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

# Small batches stay in a processor's caches and need least memory: 8 pictures are as fast as 32.
BATCH_SIZES = {CPU: 8, CUDA: 256}
# What suits the device, where the bundle has it.
FASTEST: dict[str, Precision] = {CPU: "int8", CUDA: "float16"}
MOST_CALLERS = 16  # each needs memory for its own batch's maps

Found = TypeVar("Found")


class Engine:
    """Networks that several threads may ask, and that are replaced as a whole where the device gives way.

    A device that computes wrongly in its fastest precision computes in float32. A GPU with too little memory gets
    smaller batches; one that gives up is left for the processor, in float32, if the device may move; else it is an
    error. Whatever is done without stands in `downgrades`.
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
            batch_size: pictures; None for what suits the device.
            processors: for the graphs that run on them.
            precision: None for what suits the device; float32 where the bundle does not have it.

        Raises:
            BundleError: a graph's inputs or outputs are not what this program feeds and reads.
            DeviceError: the device does not run them and may not be left.
            ThreadError: the threads that this takes cannot be started.
        """
        self.batch_size = batch_size or BATCH_SIZES[device.provider]
        self.downgrades: list[str] = []  # for run.json
        self.processors = processors
        # Batches side by side, each on few threads, take less time than one after the other on many: every layer of a
        # network ends with its threads waiting for the last of them. A GPU takes one at a time.
        self.callers = 1 if device.provider == CUDA else min(processors, MOST_CALLERS)
        self._threads = max(1, processors // self.callers)
        self._bundle = bundle
        self._giving_way = threading.Lock()
        fastest = precision or FASTEST[device.provider]
        self._networks = self._load(device, fastest if bundle.manifest.reduced(fastest) else "float32")
        # The callers' and one that waits for pictures. Found out now, while an earlier run's results still stand.
        check_threads(self.callers + 1)

    def __str__(self) -> str:
        return str(self._networks)

    @property
    def members(self) -> tuple[Member[Any], ...]:
        """The bundle's members."""
        return self._networks.members

    @property
    def device(self) -> Device:
        """Where the networks are now."""
        return self._networks.device

    @property
    def precision(self) -> Precision:
        """In which the networks that see pictures compute now, or some of them."""
        return self._networks.precision

    @property
    def nodes(self) -> dict[str, int]:
        """Nodes of the graphs by the provider that runs them."""
        return self._networks.nodes

    @property
    def batch_size_now(self) -> int:
        """Pictures that go through the networks at a time, after all that was done without."""
        return self._networks.batch_size

    def prove(self) -> str:
        """The self-test; where it fails, float32 takes the place of another precision, and the processor a device's.

        Returns as `self_test`.

        Raises:
            BundleError: as `self_test`.
            DeviceError: the device gave up and may not be left.
        """
        while True:
            device, precision = self.device, self.precision
            error = None
            try:
                digest = self_test(self, self._bundle)
            except BundleError as failure:
                error = failure
            if (self.device, self.precision) != (device, precision):
                continue  # left under way: of two ways' answers neither the verdict nor the digest means anything
            if error is None:
                return digest
            if precision != "float32":
                self._networks = self._in_float32(device, precision, error)
            elif device.may_move:
                self._networks = self._on_the_processor(device, str(error))
            else:
                raise error

    def score_pictures(self, images: Images, clinical: Floats) -> Seen:
        """Score pictures: (N, 112, 112, 3) uint8 and their patients' clinical values (N, 3).

        As many threads as `callers` may call this side by side.

        Raises:
            DeviceError: the device gave up and may not be left.
        """
        parts: list[Seen] = []
        done = 0

        def next_part(networks: Networks) -> tuple[Seen, int]:
            end = min(done + networks.batch_size, len(images))
            return networks.score_pictures(images[done:end], clinical[done:end]), end

        while done < len(images):
            part, done = self._insist(next_part)
            parts.append(part)
        return joined(parts)

    def score_patient(self, sums: Mapping[str, Any], clinical: Floats) -> dict[str, Opinion]:
        """As `Networks.score_patient`.

        Raises:
            DeviceError: the device gave up and may not be left.
        """
        return self._insist(lambda networks: networks.score_patient(sums, clinical))

    def _load(self, device: Device, precision: Precision) -> Networks:
        try:
            return Networks(self._bundle, device, self.batch_size, self._threads, precision)
        except (BundleError, DeviceError) as error:
            if precision != "float32":
                return self._in_float32(device, precision, error)
            if not (device.may_move and isinstance(error, DeviceError)):
                raise
            return self._on_the_processor(device, str(error))

    def _in_float32(self, device: Device, precision: Precision, why: BundleError | DeviceError) -> Networks:
        self.downgrades.append(f"float32 instead of {precision}: {why}")
        return self._load(device, "float32")

    def _tested_in_float32(self, networks: Networks, why: DeviceError) -> Networks:
        """Under way nothing else would find out that the device computes wrongly in float32."""
        others = self._in_float32(networks.device, networks.precision, why)
        try:
            self_test(others, self._bundle)
        except (BundleError, DeviceError) as error:
            if not others.device.may_move:
                raise
            return self._on_the_processor(others.device, str(error))
        return others

    def _insist(self, work: Callable[[Networks], Found]) -> Found:
        """Do the work with the networks as they are now, until it is done or the device may not be left."""
        while True:
            networks = self._networks
            try:
                return work(networks)
            except DeviceError as error:
                self._give_way(networks, error)

    def _give_way(self, networks: Networks, error: DeviceError) -> None:
        """Replace networks that failed, unless another thread has seen to it."""
        with self._giving_way:
            if self._networks is not networks:
                return
            if isinstance(error, DeviceMemoryError) and networks.batch_size > ROWS:
                smaller = max(ROWS, networks.batch_size // 2 // ROWS * ROWS)
                self.downgrades.append(f"batches of {smaller} instead of {self.batch_size}: {error}")
                self._networks = networks.with_batches_of(smaller)
            elif networks.precision != "float32" and not isinstance(error, DeviceMemoryError):
                self._networks = self._tested_in_float32(networks, error)
            elif networks.device.may_move:
                self._networks = self._on_the_processor(networks.device, str(error))
            else:
                raise error

    def _on_the_processor(self, device: Device, why: str) -> Networks:
        """Networks that have passed the self-test there. What fitted the GPU may be too much for its memory."""
        self.downgrades.append(f"moved from {device.provider} to {CPU}: {why}")
        networks = Networks(self._bundle, Device(CPU, f"{device.note}, then left"), BATCH_SIZES[CPU], self._threads)
        self_test(networks, self._bundle)
        return networks
