import dataclasses
import hashlib
import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from infer.bundle.load import Bundle
from infer.engine.networks import Networks, Seen
from infer.engine.self_test import self_test, self_test_images, self_test_outputs
from infer.engine.sessions import CPU, Device, Graph
from infer.errors import BundleError, DeviceError
from infer.members.member import GraphForm
from tests.infer.runs import sums_of
from tests.synthetic import draw_cell

BATCH = 8
CLINICAL = np.array([[1.0, 5.5, 60.0]], np.float32)
OUTPUTS = (
    "baseline",
    "scan",
    "moe",
    "moe_features",
    "moe_image",
    "moe_clinical",
    "moe_gate",
    "imagenet_contribution",
    "imagenet",
    "imagenet_image",
    "imagenet_clinical",
    "imagenet_gate",
)
Crops = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def crops() -> Crops:
    """(BATCH, 112, 112, 3)"""
    return np.stack([draw_cell(number % 4, np.random.default_rng([5, number]), 112) for number in range(BATCH)])


def clinical_of(number: int) -> npt.NDArray[np.float32]:
    return np.repeat(CLINICAL, number, axis=0)


def assert_same(found: Seen, expected: Seen, place: int) -> None:
    """A picture within a batch gives, to the last bit, the same outputs as in a batch of its own."""
    assert {name: list(outputs) for name, outputs in expected.items()} == {
        "baseline": ["probability"],
        "scan": ["probabilities", "cell_class", "confidence"],
        "moe": ["features"],
        "imagenet": ["features", "contribution"],
    }
    for name, outputs in expected.items():
        for output, values in outputs.items():
            np.testing.assert_array_equal(found[name][output][place], values[0])


def test_shapes_and_ranges(networks: Networks, crops: Crops) -> None:
    seen = networks.score_pictures(crops[:3], clinical_of(3))
    baseline, classes = seen["baseline"]["probability"], seen["scan"]["probabilities"]
    assert baseline.shape == (3,)
    assert classes.shape == (3, 20)
    assert seen["moe"]["features"].shape == (3, 1280)
    assert seen["imagenet"]["contribution"].shape == (3,)
    assert ((baseline >= 0) & (baseline <= 1)).all()
    np.testing.assert_allclose(classes.sum(axis=1), 1, atol=1e-5)
    opinions = networks.score_patient(sums_of(networks.members, seen), CLINICAL[0])
    assert list(opinions) == ["baseline", "scan", "moe", "imagenet"]
    assert set(opinions["moe"].further) == {"image_probability", "clinical_probability", "moe_image_gate"}
    found = opinions["imagenet"]
    assert set(found.further) == {"image_probability", "clinical_probability", "imagenet_image_gate"}
    gate = found.further["imagenet_image_gate"]
    mixed = gate * found.further["image_probability"] + (1 - gate) * found.further["clinical_probability"]
    assert found.probability == pytest.approx(mixed, rel=1e-12)
    assert 0 < gate < 1
    for opinion in opinions.values():
        assert all(0 <= value <= 1 for value in (opinion.probability, *opinion.further.values()))


def test_a_picture_has_the_same_scores_to_the_last_bit_whatever_stands_beside_it(
    networks: Networks, crops: Crops
) -> None:
    alone = networks.score_pictures(crops[:1], clinical_of(1))
    for place in range(BATCH):
        assert_same(networks.score_pictures(np.roll(crops, place, axis=0), clinical_of(BATCH)), alone, place)
    for number in range(2, BATCH):
        assert_same(networks.score_pictures(crops[:number], clinical_of(number)), alone, 0)
    for level in (0, 255):
        beside = np.full_like(crops, level)
        beside[3] = crops[0]
        others = np.full((BATCH, 3), 1000.0, np.float32)
        others[3] = CLINICAL
        assert_same(networks.score_pictures(beside, others), alone, 3)


def test_different_pictures_and_patients_have_different_scores(networks: Networks, crops: Crops) -> None:
    """Otherwise the test above would pass for networks that ignore their input."""
    seen = networks.score_pictures(crops, clinical_of(BATCH))
    assert len(np.unique(seen["moe"]["features"].reshape(BATCH, -1), axis=0)) == BATCH
    assert len(np.unique(seen["imagenet"]["contribution"])) == BATCH
    same_picture = np.repeat(crops[:1], 2, axis=0)
    patients = np.array([[1, 5.5, 60], [0, 200, 90]], np.float32)
    baseline = networks.score_pictures(same_picture, patients)["baseline"]["probability"]
    assert baseline[0] != baseline[1]


def test_the_self_test_passes_at_any_batch_size(bundle: Bundle) -> None:
    for batch_size in (1, 3, 32):
        self_test(Networks(bundle, Device(CPU, "test"), batch_size, 1), bundle)


def with_self_test(bundle: Bundle, **changes: object) -> Bundle:
    test = msgspec.structs.replace(bundle.manifest.self_test, **changes)
    return dataclasses.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, self_test=test))


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("change", [0.01, -0.01, float("nan")])
def test_the_self_test_fails_on_any_other_value(networks: Networks, bundle: Bundle, name: str, change: float) -> None:
    expected = dict(bundle.manifest.self_test.expected)
    values = list(expected[name])
    values[-1] += change
    altered = with_self_test(bundle, expected=expected | {name: values})
    with pytest.raises(BundleError, match=f"self-test failed on {CPU}: {name} differs") as caught:
        self_test(networks, altered)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_self_test_goes_by_the_largest_difference(networks: Networks, bundle: Bundle, name: str) -> None:
    test = bundle.manifest.self_test
    values = list(test.expected[name])
    values[0] += 2 * test.tolerance[CPU]
    with pytest.raises(BundleError, match=f"self-test failed on {CPU}: {name} differs"):
        self_test(networks, with_self_test(bundle, expected=test.expected | {name: values}))


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_self_test_fails_where_a_value_is_missing(networks: Networks, bundle: Bundle, name: str) -> None:
    expected = dict(bundle.manifest.self_test.expected)
    shorter = with_self_test(bundle, expected=expected | {name: expected[name][:-1]})
    without = with_self_test(bundle, expected={key: value for key, value in expected.items() if key != name})
    for altered in (shorter, without):
        with pytest.raises(BundleError, match=f"the self-test lacks values for {name}"):
            self_test(networks, altered)


def test_the_self_test_needs_a_tolerance_for_the_provider(networks: Networks, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=f"states no tolerance for {CPU}"):
        self_test(networks, with_self_test(bundle, tolerance={"OtherProvider": 1.0}))


def test_the_self_test_fails_on_another_clinical_input(networks: Networks, bundle: Bundle) -> None:
    rows = [[1 - sex, count * 3, age + 30] for sex, count, age in bundle.manifest.self_test.clinical]
    with pytest.raises(BundleError, match="self-test failed"):
        self_test(networks, with_self_test(bundle, clinical=rows))


def test_the_self_test_compares_every_output(networks: Networks, bundle: Bundle) -> None:
    test = bundle.manifest.self_test
    images = self_test_images(test.seed, test.images, 112, bundle.manifest.drift.rgb_mean)
    outputs = self_test_outputs(networks, images, np.array(test.clinical, np.float32))
    assert set(outputs) == set(test.expected)
    assert {name: len(values) for name, values in outputs.items()} == {
        name: test.images * {"scan": 20, "imagenet_distance": 2}.get(name, 1) for name in outputs
    }


def test_the_pictures_of_the_self_test_are_frozen() -> None:
    """Golden value: SHA-256 of the array's bytes, generated on 2026-11-26 with NumPy 2.4.6 on x86-64.

    RandomState's stream is guaranteed not to change (NumPy, NEP 19); if this fails, every exported bundle fails too.
    """
    images = self_test_images(20190701, 4, 112, (200.4, 128.0, 31.6))
    assert images.shape == (4, 112, 112, 3)
    assert images.dtype == np.uint8
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    assert digest == "3b927cb975ae03b581fbb764df1e0ceeb3c6442cdcf724187fa895b5d1addd27"


def test_the_pictures_of_the_self_test_are_interpolated_around_a_colour() -> None:
    """Reference with exact fractions, pixel by pixel."""
    corners = np.random.RandomState(4).randint(-115, 116, size=(2, 7, 7, 3)).tolist()
    images = self_test_images(4, 2, 112, (200.4, 128.0, 31.6))
    for image, row, column in itertools.product(range(2), (0, 1, 18, 50, 111), (0, 7, 99, 110, 111)):
        y, x = Fraction(row * 6, 111), Fraction(column * 6, 111)
        (top, down), (left, across) = divmod(y, 1), divmod(x, 1)
        for colour, middle in enumerate((200, 128, 32)):
            value = sum(
                corners[image][min(top + i, 6)][min(left + j, 6)][colour]
                * (down if i else 1 - down)
                * (across if j else 1 - across)
                for i, j in itertools.product(range(2), range(2))
            )
            assert images[image, row, column, colour] == min(max(math.floor(value) + middle, 0), 255)


def test_a_graph_in_anothers_place_is_refused(bundle: Bundle) -> None:
    graphs = bundle.graphs | {"baseline.onnx": bundle.graphs["scan.onnx"]}
    swapped = dataclasses.replace(bundle, graphs=graphs)
    with pytest.raises(BundleError, match=r"baseline\.onnx: has inputs "):
        Networks(swapped, Device(CPU, "test"), 4, 1)


def test_a_graph_that_takes_the_same_and_gives_something_else_is_refused(bundle: Bundle) -> None:
    graphs = bundle.graphs | {"scan.onnx": bundle.graphs["imagenet_pictures.onnx"]}
    swapped = dataclasses.replace(bundle, graphs=graphs)
    with pytest.raises(BundleError, match=r"scan\.onnx: has outputs \('contribution',\)"):
        Networks(swapped, Device(CPU, "test"), 4, 1)


def test_graphs_for_pictures_of_another_size_are_refused(bundle: Bundle) -> None:
    other = dataclasses.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, crop_size=96))
    with pytest.raises(BundleError, match=r"baseline\.onnx: has inputs .*112.* expects .*96"):
        Networks(other, Device(CPU, "test"), 4, 1)


def test_members_that_want_different_backbones_are_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form of a shared graph is checked for each member that names it."""
    other = GraphForm({"images": ("tensor(uint8)", (112, 112, 3))}, ("maps",))
    monkeypatch.setattr("infer.members.imagenet.form", lambda pictures: other)
    with pytest.raises(BundleError, match=r"backbone\.onnx: has outputs \('features',\), .* expects \('maps',\)"):
        Networks(bundle, Device(CPU, "test"), 4, 1)


def test_a_shared_graph_is_run_once_a_batch(bundle: Bundle, crops: Crops, monkeypatch: pytest.MonkeyPatch) -> None:
    works, ran = Graph.run, []

    def run(self: Graph, **inputs: Any) -> dict[str, Any]:
        ran.append(self.name)
        return works(self, **inputs)

    monkeypatch.setattr(Graph, "run", run)
    networks = Networks(bundle, Device(CPU, "test"), BATCH, 1)
    first = networks.score_pictures(crops, clinical_of(BATCH))
    assert sorted(ran) == ["backbone.onnx", "baseline.onnx", "imagenet_pictures.onnx", "scan.onnx"]
    second = networks.score_pictures(crops[::-1].copy(), clinical_of(BATCH))  # nothing is kept for the next batch
    assert ran.count("backbone.onnx") == 2
    np.testing.assert_array_equal(second["moe"]["features"], first["moe"]["features"][::-1])


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"x\.onnx: onnxruntime cannot load this graph"):
        Graph("x.onnx", b"no graph", Device(CPU, "test"), 1)


def test_a_session_that_ends_up_elsewhere_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(
        DeviceError, match=r"moe_head\.onnx: runs on CPUExecutionProvider instead of Elsewhere"
    ) as caught:
        Graph("moe_head.onnx", bundle.graphs["moe_head.onnx"], Device("Elsewhere", "test"), 1)
    assert caught.value.exit_code == 6
