"""The networks in float16, for a GPU: simulated here on the CPU, which rounds only their weights."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from infer.bundle.load import Bundle
from infer.bundle.manifest import load_members, reduced_outputs, stand_ins
from infer.engine.fallback import Engine
from infer.engine.networks import Networks, Seen
from infer.engine.self_test import self_test, self_test_images
from infer.engine.sessions import CPU, CUDA, Device, Graph
from infer.errors import BundleError, DeviceError, DeviceMemoryError
from infer.members.member import Precision
from tests.bundles import HALVES
from tests.float32 import in_float32
from tests.infer.runs import score

GPU = Device(CPU, "a pretended GPU", may_move=True)
PINNED = Device(CPU, "a pretended GPU")
Made = list[tuple[str, Precision]]


@pytest.fixture
def _a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer.engine.fallback.FASTEST", {CPU: "float16"})


@pytest.fixture
def crops() -> tuple[Any, Any]:
    """Smooth pictures: noise drives activations into a range where rounding errors are large."""
    images = self_test_images(7, 16, 112, (190, 160, 180))
    return images, np.random.RandomState(0).rand(16, 3).astype(np.float32)


def maps_of(seen: Seen) -> Any:
    return seen["moe"]["maps"]


def expecting(bundle: Bundle, name: str, change: float) -> Bundle:
    """Change one value of the self-test in float16."""
    float16 = bundle.manifest.float16
    assert float16
    values = [*float16.expected[name][:-1], float16.expected[name][-1] + change]
    float16 = msgspec.structs.replace(float16, expected=float16.expected | {name: values})
    return dataclasses.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, float16=float16))


def made(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str, Precision], Exception | None]) -> Made:
    """Record which networks are loaded on which device, and make some of them fail."""
    works: Any = Networks.__init__
    loaded: Made = []

    def init(
        self: Networks, bundle: Bundle, device: Device, batch: int, threads: int, precision: Precision = "float32"
    ) -> None:
        loaded.append((device.note, precision))
        if error := fails(device.note, precision):
            raise error
        works(self, bundle, device, batch, threads, precision)

    monkeypatch.setattr(Networks, "__init__", init)
    return loaded


def test_the_networks_of_pictures_are_near_those_in_float32(bundle: Bundle, crops: tuple[Any, Any]) -> None:
    exact = Networks(bundle, PINNED, 16, 1).score_pictures(*crops)
    found = Networks(bundle, PINNED, 16, 1, "float16").score_pictures(*crops)
    for name, output, allowed in (
        ("baseline", "probability", 0.005),
        ("moe", "maps", 0.1),
        ("imagenet", "contribution", 0.3),
    ):
        difference = float(np.abs(exact[name][output] - found[name][output]).max())
        assert 1e-6 < difference < allowed, name
    # Only the largest counts, and it must not change.
    assert np.array_equal(exact["scan"]["probabilities"], found["scan"]["probabilities"])


def test_weights_are_those_of_the_graph_in_float32(bundle: Bundle) -> None:
    members = load_members(bundle.manifest)
    assert stand_ins(members, "float16") == HALVES
    of_moe = {"moe", "moe_maps", "moe_image", "moe_gate"}
    assert set(reduced_outputs(members, "float16")) == {"baseline", *of_moe, "imagenet_contribution", "imagenet"}
    for name, half in HALVES.items():
        data = bundle.graphs[half]
        assert len(data) < 60_000 < len(bundle.graphs[name])
        with pytest.raises(BundleError, match=rf"{half}: onnxruntime cannot load this graph"):
            Graph(half, data, PINNED, 1)
        with pytest.raises(BundleError, match="cannot load this graph"):
            Graph(half, data, PINNED, 1, (name, bundle.graphs[name][:100_000]))
        with pytest.raises(BundleError, match="cannot load this graph"):
            Graph(half, data, PINNED, 1, ("another.onnx", bundle.graphs[name]))


def test_no_file_is_looked_into_for_weights(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a file in the current folder with the name that the graph refers to."""
    (tmp_path / "baseline.onnx").write_bytes(bundle.graphs["baseline.onnx"])
    monkeypatch.chdir(tmp_path)
    assert Path("baseline.onnx").is_file()
    with pytest.raises(BundleError, match="cannot load this graph"):
        Graph(HALVES["baseline.onnx"], bundle.graphs[HALVES["baseline.onnx"]], PINNED, 1)


def test_a_gpu_uses_float16_and_says_so(
    bundle: Bundle, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = score(pristine, tmp_path / "exact", bundle=in_float32(bundle, tmp_path / "bundle").folder)
    monkeypatch.setattr("infer.engine.fallback.FASTEST", {CPU: "float16"})
    outcome = score(pristine, tmp_path / "out")
    assert (outcome.record["device"]["precision"], outcome.record["downgrades"]) == ("float16", [])
    changes = [
        abs(float(one["probability_malignant"]) - float(other["probability_malignant"]))
        for one, other in zip(outcome.predictions.values(), exact.predictions.values(), strict=True)
    ]
    assert 0 < max(changes) < 0.01


def test_which_device_uses_what(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """After leaving a GPU, the networks compute in float32."""
    loaded = made(monkeypatch, lambda note, _: DeviceError("gone") if note == "found" else None)
    engine = Engine(bundle, Device(CUDA, "found", may_move=True), None, 1)
    assert loaded == [("found", "float16"), ("found", "float32"), ("found, then fell back to the CPU", "float32")]
    assert [text.partition(":")[0] for text in engine.downgrades] == [
        "float32 instead of float16",
        "moved from CUDAExecutionProvider to CPUExecutionProvider",
    ]
    loaded.clear()
    with pytest.raises(DeviceError, match="gone"):
        Engine(bundle, Device(CUDA, "found"), None, 1)
    assert loaded == [("found", "float16"), ("found", "float32")]
    loaded.clear()
    Engine(bundle, Device(CPU, "here"), None, 1)
    assert loaded == [("here", "int8")]


@pytest.mark.usefixtures("_a_gpu")
def test_a_gpu_that_computes_float16_wrongly_gets_float32(bundle: Bundle) -> None:
    engine = Engine(expecting(bundle, "baseline", 0.01), PINNED, None, 1)
    digest = engine.run_self_test()
    assert (engine.precision, engine.device) == ("float32", PINNED)
    (said,) = engine.downgrades
    assert said.startswith("float32 instead of float16: ")
    assert said.endswith(f"self-test failed on {CPU} in float16: baseline differs by 0.01, 0.005 is allowed")
    assert digest == self_test(Networks(bundle, PINNED, 8, 1), bundle)


@pytest.mark.usefixtures("_a_gpu")
@pytest.mark.parametrize("error", [DeviceError("not all of it runs there"), BundleError("cannot load")])
def test_a_gpu_that_does_not_load_float16_gets_float32(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    loaded = made(monkeypatch, lambda _, precision: error if precision == "float16" else None)
    engine = Engine(bundle, PINNED, None, 1)
    engine.run_self_test()
    assert loaded == [(PINNED.note, "float16"), (PINNED.note, "float32")]
    assert engine.downgrades == [f"float32 instead of float16: {error}"]


@pytest.mark.usefixtures("_a_gpu")
def test_a_gpu_that_computes_wrongly_either_way_is_left(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(networks: Any, bundle: Bundle) -> str:
        if networks.device.note == GPU.note:
            raise BundleError(f"wrong in {networks.precision}")
        return works(networks, bundle)

    works = self_test
    monkeypatch.setattr("infer.engine.fallback.self_test", fails)
    engine = Engine(bundle, GPU, None, 1)
    engine.run_self_test()
    assert (engine.precision, engine.device.note) == ("float32", "a pretended GPU, then fell back to the CPU")
    assert engine.downgrades == [
        "float32 instead of float16: wrong in float16",
        f"moved from {CPU} to {CPU}: wrong in float32",
    ]
    with pytest.raises(BundleError, match="wrong in float32"):
        Engine(bundle, PINNED, None, 1).run_self_test()


@pytest.mark.usefixtures("_a_gpu")
def test_smaller_batches_stay_in_float16(
    bundle: Bundle, crops: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Networks(bundle, PINNED, 16, 1, "float16").score_pictures(*crops)
    works: Any = Networks.score_pictures

    def small(self: Networks, images: Any, clinical: Any) -> Any:
        if self.batch_size > 8:
            raise DeviceMemoryError("out of memory")
        return works(self, images, clinical)

    monkeypatch.setattr(Networks, "score_pictures", small)
    engine = Engine(bundle, PINNED, 16, 1)
    assert np.array_equal(maps_of(engine.score_pictures(*crops)), maps_of(whole))
    assert (engine.precision, engine.batch_size_now) == ("float16", 8)


@pytest.mark.usefixtures("_a_gpu")
@pytest.mark.parametrize("proving", [True, False])
def test_a_gpu_that_gives_up_in_float16_gets_float32(
    bundle: Bundle, crops: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, proving: bool
) -> None:
    """It loads, but a kernel is missing or it fails later. In float32 the device may still work."""
    expected = Networks(bundle, PINNED, 16, 1).score_pictures(*crops)
    works: Any = Networks.score_pictures

    def no_kernel(self: Networks, images: Any, clinical: Any) -> Any:
        if self.precision == "float16":
            raise DeviceError("no engine")
        return works(self, images, clinical)

    monkeypatch.setattr(Networks, "score_pictures", no_kernel)
    engine = Engine(bundle, PINNED, 16, 1)
    if proving:
        assert engine.run_self_test() == self_test(Networks(bundle, PINNED, 16, 1), bundle)
    assert np.array_equal(maps_of(engine.score_pictures(*crops)), maps_of(expected))
    assert (engine.precision, engine.device) == ("float32", PINNED)
    assert engine.downgrades == ["float32 instead of float16: no engine"]


@pytest.mark.usefixtures("_a_gpu")
def test_the_self_test_begins_anew_where_float16_is_left_within_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures were scored in float16, patients in float32: the digest would match neither precision."""
    expected = self_test(Networks(bundle, PINNED, 16, 1), bundle)
    works: Any = Networks.score_patient

    def no_kernel(self: Networks, *arguments: Any) -> Any:
        if self.precision == "float16":
            raise DeviceError("no engine")
        return works(self, *arguments)

    monkeypatch.setattr(Networks, "score_patient", no_kernel)
    engine = Engine(bundle, PINNED, 16, 1)
    assert engine.run_self_test() == expected
    assert engine.precision == "float32"


def test_what_is_left_is_named(bundle: Bundle) -> None:
    """Whatever the device's default precision is."""
    broken = dataclasses.replace(bundle, graphs=bundle.graphs | {HALVES["baseline.onnx"]: b"no graph"})
    (said,) = Engine(broken, PINNED, 8, 1, "float16").downgrades
    assert said.startswith("float32 instead of float16: baseline.float16.onnx: onnxruntime cannot load")


@pytest.mark.usefixtures("_a_gpu")
@pytest.mark.parametrize("error", [BundleError("wrong in float32"), DeviceError("gone")])
def test_float32_is_tested_before_it_takes_over_under_way(
    bundle: Bundle, crops: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    works: Any = Networks.score_pictures
    proven = False

    def breaks_down(self: Networks, images: Any, clinical: Any) -> Any:
        if proven and self.precision == "float16":
            raise DeviceError("no engine")
        if proven and self.device.note == PINNED.note:
            raise error
        return works(self, images, clinical)

    monkeypatch.setattr(Networks, "score_pictures", breaks_down)
    engine = Engine(bundle, GPU, 16, 1)
    engine.run_self_test()
    proven = True
    expected = Networks(bundle, Device(CPU, "here"), 8, 1).score_pictures(*(part[:8] for part in crops))
    assert np.array_equal(maps_of(engine.score_pictures(*crops))[:8], maps_of(expected))
    assert engine.device.note == "a pretended GPU, then fell back to the CPU"
    assert engine.downgrades == ["float32 instead of float16: no engine", f"moved from {CPU} to {CPU}: {error}"]
    proven = False
    engine = Engine(bundle, PINNED, 16, 1)
    engine.run_self_test()
    proven = True
    with pytest.raises(type(error), match=str(error)):
        engine.score_pictures(*crops)
