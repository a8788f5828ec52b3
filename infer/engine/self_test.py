"""The self-test: generated pictures, and the networks' outputs for them recorded at export."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from infer.bundle.load import Bundle
from infer.engine.networks import Images, Seen, joined
from infer.engine.sessions import Device
from infer.errors import BundleError
from infer.members.member import Floats, Member, Opinion, Precision

CLOUDS = 7  # grid points per side, between which the pictures are interpolated


class Tested(Protocol):
    """What can be self-tested: the networks themselves, or an engine around them."""

    batch_size: int

    @property
    def members(self) -> tuple[Member[Any], ...]: ...
    @property
    def device(self) -> Device: ...
    @property
    def precision(self) -> Precision: ...
    def score_pictures(self, images: Images, clinical: Floats) -> Seen: ...
    def score_patient(self, sums: Mapping[str, Any], clinical: Floats) -> dict[str, Opinion]: ...


def self_test_images(seed: int, number: int, size: int, colour: Sequence[float]) -> Images:
    """Smooth clouds around a colour, identical on every machine and NumPy version: (number, size, size, 3).

    They are smooth like cells: noise saturates more of the networks' integers, which hides errors. RandomState's stream
    is frozen by NumPy's policy, default_rng's is not; all sums are integer sums, which do not depend on rounding.

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


def self_test_outputs(networks: Tested, images: Images, clinical: Floats) -> dict[str, Floats]:
    """The flat arrays that the self-test compares: single pictures, and each as a patient of one picture."""
    size = networks.batch_size
    seen = joined(
        [networks.score_pictures(images[i : i + size], clinical[i : i + size]) for i in range(0, len(images), size)]
    )
    opinions: dict[str, list[Opinion]] = {member.name: [] for member in networks.members}
    for row in range(len(images)):
        sums = {member.name: member.begin() for member in networks.members}
        for member in networks.members:
            member.add(sums[member.name], seen[member.name], row)
        for name, opinion in networks.score_patient(sums, clinical[row]).items():
            opinions[name].append(opinion)
    outputs: dict[str, Floats] = {}
    for member in networks.members:
        outputs |= member.tested(seen[member.name], opinions[member.name])
    return outputs


def self_test(networks: Tested, bundle: Bundle) -> str:
    """Compare the graphs' outputs on this machine with those recorded at export.

    Returns:
        SHA-256 of the outputs: if it is equal, CPU, provider and library round identically.

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
    if reduced:  # float32 is the fallback
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
