"""A bundle of a few kilobytes with the interface of the real one, for tests of everything around the networks.

    .build/full/bin/python -m tests.tiny_bundle tests/infer/tiny

Its networks use a picture's mean colour and a few fixed numbers; everything else (naive Bayes, ensemble, ranges) is
from the reference bundle. Its predictions are meaningless.
"""

import json
from pathlib import Path

import click
import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from infer.bundle.load import CARD, CHECKSUMS, REFERENCE, Bundle, checksums, load_bundle
from infer.bundle.manifest import MANIFEST, encode
from infer.bundle.reference import Span, Usual
from infer.cohort.plausible import Range
from infer.engine.networks import Networks
from infer.engine.self_test import self_test_images, self_test_outputs
from infer.engine.sessions import CPU, Device
from infer.members.backbone import FEATURES as FEATURES_INPUT
from infer.members.gated import OUTPUTS
from tests.infer.manifests import APPEARANCE

OPSET = 20
(FEATURES,) = FEATURES_INPUT[1]
FEW = 3  # features that the members' networks look at
# Drawn cells have a sharpness of .66 to 1.00; blurred ones (sigma 2) of .06 to .11, and they alone are unusual.
USUAL = Usual(
    limit=0.03,
    spans={"sharpness": Span(0.2, 0.9, 1000.0)},
    ranges={"age_years": Range(0.0, 120.0), "lymph_count": Range(0.0, 1000.0)},
    scores=[number / 130 for number in range(130)],
)
Shape = list[str | int]
Value = tuple[str, int, Shape]
Plan = tuple[list[onnx.NodeProto], list[Value], list[tuple[str, Shape]]]
PICTURES: list[Value] = [("images", TensorProto.UINT8, ["batch", 112, 112, 3])]
SEEN: list[Value] = [("features", TensorProto.FLOAT, ["batch", FEATURES])]
CLINICAL: list[Value] = [("clinical", TensorProto.FLOAT, ["batch", 3])]


def graphs() -> dict[str, bytes]:
    """All graphs."""
    random = np.random.RandomState(0)
    colour = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "sides"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["colour"]),  # (N, 3)
    ]
    numbers: dict[str, np.ndarray] = {
        "sides": np.array([1, 2]),
        "white": np.array(255, np.float32),
        "last": np.array([1]),
        "first": np.arange(FEW),
    }

    few = helper.make_node("Gather", ["features", "first"], ["some"], axis=1)

    def linear(source: str, target: str, weights: np.ndarray) -> list[onnx.NodeProto]:
        numbers[f"{target} weights"] = weights.astype(np.float32)
        return [helper.make_node("MatMul", [source, f"{target} weights"], [target])]

    def sigmoid_of(source: str, target: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("ReduceMean", [source, "last"], [f"{target} logit"], keepdims=0),
            helper.make_node("Cast", [f"{target} logit"], [f"{target} double"], to=TensorProto.DOUBLE),
            helper.make_node("Sigmoid", [f"{target} double"], [target]),
        ]

    made: dict[str, Plan] = {
        "baseline.onnx": (
            [*colour, *linear("colour", "c", random.randn(3, 4)), *sigmoid_of("c", "probability")],
            [*PICTURES, *CLINICAL],
            [("probability", ["batch"])],
        ),
        "backbone.onnx": (
            [*colour, *linear("colour", "features", random.randn(3, FEATURES))],
            PICTURES,
            [("features", ["batch", FEATURES])],
        ),
        "scan.onnx": (
            [
                few,
                *linear("some", "logits", 9 * random.randn(FEW, 20)),
                helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
                *linear("some", "embedding", random.randn(FEW, 8)),
            ],
            SEEN,
            [("probabilities", ["batch", 20]), ("embedding", ["batch", 8])],
        ),
        "moe_head.onnx": (
            [
                few,
                *linear("some", "i", random.randn(FEW, 2)),
                *linear("clinical", "k", 0.02 * random.randn(3, 2)),
                helper.make_node("Sum", ["i", "k"], ["both"]),
                *sigmoid_of("i", "image_probability"),
                *sigmoid_of("k", "clinical_probability"),
                *sigmoid_of("both", "probability"),
                helper.make_node("Mul", ["probability", "half"], ["gate"]),
            ],
            [*SEEN, *CLINICAL],
            [(name, ["batch"]) for name in OUTPUTS],
        ),
        "imagenet_pictures.onnx": (
            [
                few,
                *linear("some", "d", random.randn(FEW, 4)),
                helper.make_node("ReduceMean", ["d", "last"], ["contribution"], keepdims=0),
            ],
            SEEN,
            [("contribution", ["batch"])],
        ),
        "imagenet_head.onnx": (
            [
                *linear("clinical", "k", 0.02 * random.randn(3, 2)),
                helper.make_node("ReduceMean", ["k", "last"], ["mean"], keepdims=0),
                helper.make_node("Add", ["mean", "contribution"], ["logit"]),
                helper.make_node("Cast", ["logit"], ["double"], to=TensorProto.DOUBLE),
                helper.make_node("Sigmoid", ["double"], ["probability"]),
                helper.make_node("Cast", ["contribution"], ["of pictures"], to=TensorProto.DOUBLE),
                helper.make_node("Sigmoid", ["of pictures"], ["image_probability"]),
                *sigmoid_of("k", "clinical_probability"),
                helper.make_node("Mul", ["clinical_probability", "half"], ["gate"]),
            ],
            [("contribution", TensorProto.FLOAT, ["batch"]), *CLINICAL],
            [(name, ["batch"]) for name in OUTPUTS],
        ),
        "imagenet_distance.onnx": (
            [
                few,
                helper.make_node("ReduceL2", ["some", "last"], ["within"], keepdims=0),
                helper.make_node("ReduceL2", ["features", "last"], ["outside"], keepdims=0),
            ],
            SEEN,
            [("within", ["batch"]), ("outside", ["batch"])],
        ),
    }
    numbers["half"] = np.array(0.5)
    return {name: _graph(name, nodes, inputs, outputs, numbers) for name, (nodes, inputs, outputs) in made.items()}


def _type_of(output: str) -> int:
    """Probabilities of malignant and the gate are in double precision, as in the real graphs of patients."""
    return TensorProto.DOUBLE if output.endswith("probability") or output == "gate" else TensorProto.FLOAT


def _graph(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[Value],
    outputs: list[tuple[str, Shape]],
    numbers: dict[str, np.ndarray],
) -> bytes:
    read = {source for node in nodes for source in node.input}
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(title, _type_of(title), shape) for title, shape in outputs],
        [numpy_helper.from_array(value, title) for title, value in numbers.items() if title in read],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def bundle_files() -> dict[str, bytes]:
    """All files of the bundle except SHA256SUMS."""
    made = graphs()
    manifest = load_bundle(REFERENCE).manifest
    test = manifest.self_test
    images = self_test_images(test.seed, test.images, manifest.crop_size, manifest.drift.rgb_mean)
    bundle = Bundle(Path(), "", manifest, made)
    outputs = self_test_outputs(
        Networks(bundle, Device(CPU, "made"), test.images, 1), images, np.array(test.clinical, dtype=np.float32)
    )
    # Rounded, far below the tolerance, so that the file does not depend on the CPU.
    expected = {name: [round(float(value), 5) for value in values] for name, values in outputs.items()}
    digests = checksums(made).decode().split()
    provenance = json.loads(msgspec.json.encode(manifest.provenance)) | {"recipe": "none", "created": "2026-11-26"}
    manifest = msgspec.structs.replace(
        manifest,
        graphs=dict(zip(digests[1::2], digests[::2], strict=True)),
        opset=OPSET,
        ensemble=msgspec.structs.replace(manifest.ensemble, disagreement=None),  # its members have nothing to agree on
        reference=msgspec.structs.replace(manifest.reference, usual=USUAL, seen="", appearance=APPEARANCE),
        provenance=msgspec.convert(provenance, type(manifest.provenance)),
        self_test=msgspec.structs.replace(test, expected=expected),
        int8=None,
    )
    card = "# A bundle for tests\n\nMade by `tests/tiny_bundle.py`. What it says of a patient means nothing.\n"
    return {**made, MANIFEST: encode(manifest), CARD: card.encode()}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def main(folder: Path) -> None:
    """Write the bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    files = bundle_files()
    for name, data in {**files, CHECKSUMS: checksums(files)}.items():
        (folder / name).write_bytes(data)
    load_bundle(folder)


if __name__ == "__main__":
    main()
