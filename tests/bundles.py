"""The contents of bundles of this version, written out as the expected values in tests."""

from infer.bundle.manifest import Manifest, load_members
from infer.members.scan import Scan, ScanSection

MEMBERS = ("baseline", "scan", "moe", "imagenet")
GRAPHS = (
    "baseline.onnx", "backbone.onnx", "scan.onnx", "moe_head.onnx", "imagenet_pictures.onnx", "imagenet_head.onnx",
    "imagenet_distance.onnx"
)  # fmt: skip
INT8 = "backbone.int8.onnx"
ALL_GRAPHS = {*GRAPHS, INT8}
INT8_OUTPUTS = (
    "scan",
    "moe",
    "moe_features",
    "moe_image",
    "moe_gate",
    "imagenet_contribution",
    "imagenet",
    "imagenet_image",
    "imagenet_gate",
    "imagenet_distance",
)


def scan_section(manifest: Manifest) -> ScanSection:
    """The cell classes and naive Bayes of a bundle."""
    (scan,) = [member for member in load_members(manifest) if isinstance(member, Scan)]
    section: ScanSection = scan.section
    return section
