"""The contents of bundles of this version, written out as the expected values in tests."""

from infer.bundle.manifest import Manifest, load_members
from infer.members.scan import Scan, ScanSection

MEMBERS = ("baseline", "scan", "moe", "imagenet")
GRAPHS = (
    "baseline.onnx", "scan.onnx", "moe_encoder.onnx", "moe_head.onnx", "imagenet_encoder.onnx", "imagenet_head.onnx"
)  # fmt: skip
INT8 = "moe_encoder.int8.onnx"
HALVES = {
    "baseline.onnx": "baseline.float16.onnx",
    "moe_encoder.onnx": "moe_encoder.float16.onnx",
    "imagenet_encoder.onnx": "imagenet_encoder.float16.onnx",
}
ALL_GRAPHS = {*GRAPHS, INT8, *HALVES.values()}
INT8_OUTPUTS = ("moe", "moe_maps", "moe_image", "moe_gate")
FLOAT16_OUTPUTS = ("baseline", *INT8_OUTPUTS, "imagenet_contribution", "imagenet")


def scan_section(manifest: Manifest) -> ScanSection:
    """The cell classes and naive Bayes of a bundle."""
    (scan,) = [member for member in load_members(manifest) if isinstance(member, Scan)]
    section: ScanSection = scan.section
    return section
