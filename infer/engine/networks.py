"""The networks of a bundle, checked and ready: batches of crops in, each member's raw outputs out."""

import copy
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from infer.bundle.load import Bundle
from infer.bundle.manifest import GRAPHS, INSTEAD, Precision
from infer.engine.sessions import Device, Graph, shared
from infer.errors import BundleError

Floats = npt.NDArray[np.floating]
Images = npt.NDArray[np.uint8]

# Input -> (type, axes after the batch). Outputs by name; graphs.py in export promises the same.
CLINICAL = ("tensor(float)", (3,))
FEATURE_MAPS = (256, 3, 3)  # of each of the mixtures, one after the other
CLOUDS = 7  # places a side between which the self-test's pictures are interpolated
# Batches are padded to a multiple of it: left-over rows of a matrix go through kernels of their own, which round
# otherwise, and a score's last digit must not hang on --batch-size.
ROWS = 8


@dataclass(frozen=True)
class ImageScores:
    """What the networks say of single pictures."""

    baseline: Floats  # (N,)
    classes: Floats  # (N, 20) probabilities before fusion
    maps: Floats  # (N, 256 of each mixture, 3, 3)
    contribution: Floats  # (N,) what each adds to the logit of the ImageNet member's picture expert


@dataclass(frozen=True)
class BagScores:
    """What the mixture of experts and the ImageNet member say of one patient; raw, not calibrated."""

    moe: float
    image: float
    clinical: float
    gate: float  # share of the image expert
    imagenet: float


class Scoring(Protocol):
    """What can be put to the self-test: the networks themselves, or what stands before them."""

    batch_size: int

    @property
    def device(self) -> Device: ...
    @property
    def precision(self) -> Precision: ...
    def score_images(self, images: Images, clinical: Floats) -> ImageScores: ...
    def score_bag(self, mean_maps: Floats, mean_contribution: float, clinical: Floats) -> BagScores: ...


class Networks:
    """Six graphs. Pictures always go through in batches of one fixed size, the last one padded.

    A second batch shape would enlarge onnxruntime's memory arena for good, and a score must not depend on how many
    other pictures happen to share its batch.
    """

    def __init__(
        self, bundle: Bundle, device: Device, batch_size: int, threads: int, precision: Precision = "float32"
    ) -> None:
        """Load and check the graphs.

        Args:
            precision: one that the bundle has.

        Raises:
            BundleError: a graph's inputs or outputs are not what this program feeds and reads.
            DeviceError: the device does not run them.
        """
        self._device = device
        self._precision: Precision = precision
        self.batch_size = batch_size
        instead = INSTEAD[precision]
        graphs = {
            name: Graph(
                instead.get(name, name),
                bundle.graphs[instead.get(name, name)],
                device,
                threads,
                (name, bundle.graphs[name]) if name in instead else None,
            )
            for name in GRAPHS
        }
        self.nodes = dict(sum((graph.nodes for graph in graphs.values()), Counter[str]()))  # provider -> nodes
        size = bundle.manifest.crop_size
        pictures = ("tensor(uint8)", (size, size, 3))
        _check(graphs["baseline.onnx"], {"images": pictures, "clinical": CLINICAL}, ("probability",))
        _check(graphs["scan.onnx"], {"images": pictures}, ("probabilities", "embedding"))
        _check(graphs["moe_encoder.onnx"], {"images": pictures}, ("maps",))
        bags = ("tensor(float)", _maps(graphs["moe_head.onnx"]))
        head_outputs = ("probability", "image_probability", "clinical_probability", "gate")
        _check(graphs["moe_head.onnx"], {"bags": bags, "clinical": CLINICAL}, head_outputs)
        _check(graphs["imagenet_encoder.onnx"], {"images": pictures}, ("contribution",))
        one_each = ("tensor(float)", ())
        _check(graphs["imagenet_head.onnx"], {"contribution": one_each, "clinical": CLINICAL}, ("probability",))
        self._baseline, self._scan = graphs["baseline.onnx"], graphs["scan.onnx"]
        self._encoder, self._head = graphs["moe_encoder.onnx"], graphs["moe_head.onnx"]
        self._imagenet, self._imagenet_head = graphs["imagenet_encoder.onnx"], graphs["imagenet_head.onnx"]

    @property
    def device(self) -> Device:
        """Where the graphs run."""
        return self._device

    @property
    def precision(self) -> Precision:
        """In which the networks that see pictures compute, or some of them."""
        return self._precision

    def __str__(self) -> str:
        return f"{self.device.provider} ({self.device.note}), {self.precision}"

    def with_batches_of(self, batch_size: int) -> "Networks":
        """The same graphs for another batch size."""
        other = copy.copy(self)
        other.batch_size = batch_size
        return other

    def score_images(self, images: Images, clinical: Floats) -> ImageScores:
        """Score up to `batch_size` pictures: (N, 112, 112, 3) uint8 and their patients' clinical values (N, 3).

        Raises:
            DeviceError: the device gave up.
        """
        number = len(images)
        rows = -(-self.batch_size // ROWS) * ROWS
        if number < rows:
            padding = rows - number
            images = np.concatenate([images, np.zeros((padding, *images.shape[1:]), np.uint8)])
            clinical = np.concatenate([clinical, np.ones((padding, 3), np.float32)])
        pictures = shared(self.device, images)
        baseline = self._baseline.run(images=pictures, clinical=clinical.astype(np.float32))
        return ImageScores(
            baseline=baseline["probability"][:number],
            classes=self._scan.run(images=pictures)["probabilities"][:number],
            maps=self._encoder.run(images=pictures)["maps"][:number],
            contribution=self._imagenet.run(images=pictures)["contribution"][:number],
        )

    def score_bag(self, mean_maps: Floats, mean_contribution: float, clinical: Floats) -> BagScores:
        """Score one patient: means over its pictures of maps (C, 3, 3) and contribution; clinical values (3,).

        Raises:
            DeviceError: the device gave up.
        """
        values = clinical[None].astype(np.float32)
        mixture = self._head.run(bags=mean_maps[None].astype(np.float32), clinical=values)
        imagenet = self._imagenet_head.run(contribution=np.array([mean_contribution], np.float32), clinical=values)
        out = {name: float(of[0]) for name, of in mixture.items()}
        return BagScores(
            out["probability"],
            out["image_probability"],
            out["clinical_probability"],
            out["gate"],
            float(imagenet["probability"][0]),
        )


def self_test_images(seed: int, number: int, size: int, colour: Sequence[float]) -> Images:
    """Soft clouds around a colour, the same on every machine and NumPy: (number, size, size, 3).

    Smooth, as cells are: noise drives more of the networks' values to the end of the integers' range, where errors
    vanish. RandomState's stream is frozen by NumPy's policy,
    default_rng's is not; sums are of whole numbers, which no machine rounds.

    Args:
        colour: (3,) mean of red, green and blue.
    """
    corners = np.random.RandomState(seed).randint(-115, 116, size=(number, CLOUDS, CLOUDS, 3))
    left, rest = np.divmod(np.arange(size) * (CLOUDS - 1), size - 1)
    right = np.minimum(left + 1, CLOUDS - 1)
    part = rest[:, None, None]
    rows = corners[:, left] * (size - 1 - part) + corners[:, right] * part
    part = rest[:, None]
    clouds = (rows[:, :, left] * (size - 1 - part) + rows[:, :, right] * part) // (size - 1) ** 2
    images: Images = np.clip(clouds + np.rint(colour).astype(np.int64), 0, 255).astype(np.uint8)
    return images


def self_test_outputs(networks: Scoring, images: Images, clinical: Floats) -> dict[str, Floats]:
    """What the self-test compares, each flat: every picture alone, and as a bag of one."""
    size = networks.batch_size
    parts = [networks.score_images(images[i : i + size], clinical[i : i + size]) for i in range(0, len(images), size)]
    maps = np.concatenate([part.maps for part in parts])
    contribution = np.concatenate([part.contribution for part in parts])
    bags = [networks.score_bag(*one) for one in zip(maps, contribution, clinical, strict=True)]
    return {
        "baseline": np.concatenate([part.baseline for part in parts]),
        "scan": np.concatenate([part.classes for part in parts]).ravel(),
        "moe": np.array([bag.moe for bag in bags]),
        # The image experts may be sure of every drawn picture; maps tell an encoder that is wrong all the same.
        "moe_maps": maps.reshape(len(maps), -1, int(np.prod(FEATURE_MAPS))).mean(axis=2).ravel(),
        "moe_image": np.array([bag.image for bag in bags]),
        "moe_clinical": np.array([bag.clinical for bag in bags]),
        "moe_gate": np.array([bag.gate for bag in bags]),
        "imagenet_contribution": contribution,
        "imagenet": np.array([bag.imagenet for bag in bags]),
    }


def self_test(networks: Scoring, bundle: Bundle) -> str:
    """Compare the graphs' outputs on this machine with those the bundle was exported with.

    Returns:
        SHA-256 of the outputs: where it is the same, processor, provider and library round alike.

    Raises:
        BundleError: an output differs by more than the bundle allows.
    """
    test, provider = bundle.manifest.self_test, networks.device.provider
    if provider not in test.tolerance:
        raise BundleError(f"{bundle.folder}: states no tolerance for {provider}. Use another --device")
    reduced = bundle.manifest.reduced(networks.precision)
    all_expected = test.expected | (reduced.expected if reduced else {})
    all_allowed = dict.fromkeys(all_expected, test.tolerance[provider])
    where, advice = provider, ". Do not use this bundle on this machine"
    if reduced:  # float32 takes its place
        all_allowed |= reduced.tolerance
        where, advice = f"{provider} in {networks.precision}", ""
    images = self_test_images(test.seed, test.images, bundle.manifest.crop_size, bundle.manifest.drift.rgb_mean)
    found = self_test_outputs(networks, images, np.array(test.clinical, dtype=np.float32))
    for name, values in found.items():
        expected = np.array(all_expected.get(name, ()))
        if expected.shape != values.shape:
            raise BundleError(f"{bundle.folder}: the self-test lacks values for {name}. Export the bundle again")
        difference, allowed = float(np.max(np.abs(values - expected))), all_allowed[name]
        if not difference <= allowed:  # so that NaN fails too
            raise BundleError(
                f"{bundle.folder}: self-test failed on {where}: {name} differs by {difference:.2g}, "
                f"{allowed:.2g} is allowed{advice}"
            )
    return hashlib.sha256(b"".join(np.float64(values).tobytes() for values in found.values())).hexdigest()


def _maps(head: Graph) -> tuple[int, ...]:
    """What the mixtures' heads take, if that is a whole number of mixtures; else what one takes."""
    shape = head.inputs.get("bags", ("", ()))[1][1:]
    fits = len(shape) == len(FEATURE_MAPS) and isinstance(shape[0], int) and shape[0] % FEATURE_MAPS[0] == 0
    return (shape[0], *FEATURE_MAPS[1:]) if fits else FEATURE_MAPS


def _check(graph: Graph, inputs: dict[str, tuple[str, tuple[int, ...]]], outputs: tuple[str, ...]) -> None:
    found = {name: (kind, shape[1:]) for name, (kind, shape) in graph.inputs.items()}
    if found != inputs:
        raise BundleError(f"{graph.name}: takes {found}, this program feeds {inputs}. Export the bundle again")
    if graph.outputs != outputs:
        raise BundleError(f"{graph.name}: gives {graph.outputs}, this program reads {outputs}. Export again")
