"""The networks of a bundle, loaded and checked: batches of crops in, each member's outputs out."""

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from infer.bundle.load import Bundle
from infer.bundle.manifest import load_members, stand_ins
from infer.engine.sessions import Device, Graph, shared
from infer.errors import BundleError
from infer.members.member import Floats, GraphForm, Member, Opinion, Precision, RunGraph

Images = npt.NDArray[np.uint8]
Seen = dict[str, dict[str, Floats]]  # member -> output -> (N, ...), for N pictures

# Batches are padded to a multiple of this: leftover rows of a matrix use other kernels, which round differently, and a
# score's last digit must not depend on --batch-size.
ROWS = 8


class Networks:
    """All graphs of a bundle. Pictures are always processed in batches of one fixed size, the last one padded.

    A second batch shape would enlarge onnxruntime's memory arena permanently, and a score must not depend on how many
    other pictures are in its batch.
    """

    def __init__(
        self, bundle: Bundle, device: Device, batch_size: int, threads: int, precision: Precision = "float32"
    ) -> None:
        """Load and check the graphs.

        Args:
            precision: one that the bundle has.

        Raises:
            BundleError: a graph's inputs or outputs are not those that this program expects.
            DeviceError: the device cannot run them.
        """
        self._device = device
        self._precision: Precision = precision
        self.batch_size = batch_size
        self._members = load_members(bundle.manifest)
        instead = stand_ins(self._members, precision)
        self._graphs: dict[str, Graph] = {}
        for member in self.members:
            for file, form in member.graphs.items():
                if file in self._graphs:  # several members stand on it
                    _check(self._graphs[file], form)
                    continue
                own = instead.get(file, file)
                graph = Graph(own, bundle.graphs[own], device, threads)
                _check(graph, form)
                self._graphs[file] = graph
        counts = (graph.nodes for graph in self._graphs.values())
        self.nodes = dict(sum(counts, Counter[str]()))  # provider -> nodes

    @property
    def members(self) -> tuple[Member[Any], ...]:
        """The bundle's members."""
        return self._members

    @property
    def device(self) -> Device:
        """Where the graphs run."""
        return self._device

    @property
    def precision(self) -> Precision:
        """The precision of the networks that take pictures, or of some of them."""
        return self._precision

    def __str__(self) -> str:
        return f"{self.device.provider} ({self.device.note}), {self.precision}"

    def with_batches_of(self, batch_size: int) -> "Networks":
        """The same graphs for another batch size."""
        other = copy.copy(self)
        other.batch_size = batch_size
        return other

    def score_pictures(self, images: Images, clinical: Floats) -> Seen:
        """Score up to `batch_size` pictures: (N, 112, 112, 3) uint8 and their patients' clinical values (N, 3).

        Raises:
            DeviceError: the device failed.
        """
        number = len(images)
        rows = -(-self.batch_size // ROWS) * ROWS
        if number < rows:
            padding = rows - number
            images = np.concatenate([images, np.zeros((padding, *images.shape[1:]), np.uint8)])
            clinical = np.concatenate([clinical, np.ones((padding, 3), np.float32)])
        pictures = shared(self.device, images)
        run = self._run_once_each()
        seen = {member.name: member.see(run, pictures, clinical) for member in self.members}
        return {name: {output: of[:number] for output, of in one.items()} for name, one in seen.items()}

    def score_patient(self, sums: Mapping[str, Any], clinical: Floats) -> dict[str, Opinion]:
        """Each member's output for one patient.

        Args:
            sums: by member, over all the patient's pictures.
            clinical: (3,)

        Raises:
            DeviceError: the device failed.
        """
        return {member.name: member.conclude(sums[member.name], self._run, clinical) for member in self.members}

    def _run_once_each(self) -> RunGraph:
        """Like `_run`, for one batch of pictures: a graph that several members give the pictures to is run once."""
        found: dict[str, dict[str, Floats]] = {}

        def run(file: str, /, **inputs: Any) -> dict[str, Floats]:
            if inputs.keys() != {"images"}:
                return self._run(file, **inputs)
            if file not in found:
                found[file] = self._run(file, **inputs)
            return found[file]

        return run

    def _run(self, file: str, /, **inputs: Any) -> dict[str, Floats]:
        return dict(self._graphs[file].run(**inputs))


def smallest_graph(bundle: Bundle) -> bytes:
    """The smallest graph that can be loaded on its own, to find out whether a device can run graphs.

    Raises:
        BundleError: the bundle has no such graph.
    """
    files = [file for member in load_members(bundle.manifest) for file in member.graphs]
    if not files:
        raise BundleError(f"{bundle.folder}: has no graph. Export the bundle again")
    return min((bundle.graphs[file] for file in files), key=len)


def joined(parts: list[Seen]) -> Seen:
    """Concatenate the outputs of consecutive pictures."""
    if len(parts) == 1:
        return parts[0]
    return {
        name: {output: np.concatenate([part[name][output] for part in parts]) for output in of}
        for name, of in parts[0].items()
    }


def _check(graph: Graph, form: GraphForm) -> None:
    found = {name: (kind, shape[1:]) for name, (kind, shape) in graph.inputs.items()}
    if found != dict(form.inputs):
        wanted = dict(form.inputs)
        raise BundleError(f"{graph.name}: has inputs {found}, this program expects {wanted}. Export the bundle again")
    if graph.outputs != form.outputs:
        raise BundleError(
            f"{graph.name}: has outputs {graph.outputs}, this program expects {form.outputs}. Export the bundle again"
        )
