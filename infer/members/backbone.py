"""The backbone: one network that sees every picture once, and whose features several members stand on.

A member names its graph among its own; the engine loads it once, and runs it once per batch.
"""

from infer.members.member import GraphForm, Input, Precision

BACKBONE = "backbone.onnx"
FEATURES: Input = ("tensor(float)", (1280,))  # of EfficientNet-Lite0 (Tan & Le 2019), or their mean over pictures
STAND_INS: dict[Precision, dict[str, str]] = {"int8": {BACKBONE: "backbone.int8.onnx"}}


def form(pictures: Input) -> GraphForm:
    """Pictures in, features out."""
    return GraphForm({"images": pictures}, ("features",))
