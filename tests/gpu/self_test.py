"""Step `self-test`: how far each output is from the bundle's expected values, in each precision of a GPU."""

import numpy as np

from infer.bundle.load import Bundle
from infer.engine.fallback import BATCH_SIZES, FASTEST
from infer.engine.networks import Networks
from infer.engine.self_test import self_test_images, self_test_outputs
from infer.engine.sessions import CUDA
from infer.errors import BundleError, DeviceError
from infer.members.member import Precision
from tests.gpu.check import Check, StepError


def self_test(check: Check) -> None:
    """Note each output's largest difference and tolerance, and the nodes by provider.

    Raises:
        StepError: a precision fails; the others are tested all the same.
    """
    bundle = check.load()
    device = check.chosen(bundle)
    precisions: list[Precision] = ["float32"]
    if bundle.manifest.reduced(FASTEST[CUDA]):
        precisions.append(FASTEST[CUDA])
    problems = []
    for precision in precisions:
        try:
            networks = Networks(bundle, device, BATCH_SIZES[CUDA], 1, precision)
            differences = _differences(networks, bundle)
        except (BundleError, DeviceError) as error:
            problems.append(f"{precision}: {error}")
            continue
        outputs = {name: {"difference": off, "tolerance": allowed} for name, (off, allowed) in differences.items()}
        check.note(precision, {"nodes": networks.nodes, "outputs": outputs})
        problems += [
            f"{precision}: {name} differs by {off:.2g}, {allowed:.2g} is allowed"
            for name, (off, allowed) in differences.items()
            if not off <= allowed  # so that NaN fails too
        ]
    if problems:
        raise StepError("; ".join(problems))


def _differences(networks: Networks, bundle: Bundle) -> dict[str, tuple[float, float]]:
    """Output -> largest difference from the expected values, and the tolerance."""
    test, reduced = bundle.manifest.self_test, bundle.manifest.reduced(networks.precision)
    expected = test.expected | (reduced.expected if reduced else {})
    tolerance = test.tolerance[networks.device.provider]
    allowed = dict.fromkeys(expected, tolerance) | (reduced.tolerance if reduced else {})
    images = self_test_images(test.seed, test.images, bundle.manifest.crop_size, bundle.manifest.drift.rgb_mean)
    found = self_test_outputs(networks, images, np.array(test.clinical, dtype=np.float32))
    return {
        name: (float(np.max(np.abs(values - np.array(expected[name])))), allowed[name])
        for name, values in found.items()
    }
