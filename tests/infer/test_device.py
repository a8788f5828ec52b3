"""A GPU that fails or has too little memory, simulated on the CPU, so that the outputs are the real ones."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import infer.engine.self_test
import infer.engine.sessions
from infer.bundle.load import Bundle, load_bundle
from infer.engine.fallback import Engine
from infer.engine.networks import Networks
from infer.engine.sessions import CPU, CUDA, Device, Graph, check_nodes, shared
from infer.errors import BundleError, DeviceError, DeviceMemoryError
from infer.output.results import Results
from tests.infer.runs import TINY, Cut, score, sums_of

PRETENDED = Device(CPU, "a pretended GPU", may_move=True)
PINNED = Device(CPU, "a pretended GPU")
OUT_OF_MEMORY = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=x",
    "[ONNXRuntimeError] : 1 : FAIL : bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested",
)


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return load_bundle(TINY)


@pytest.fixture
def crops() -> tuple[Any, Any]:
    random = np.random.RandomState(0)
    return random.randint(0, 256, (40, 112, 112, 3)).astype(np.uint8), random.rand(40, 3).astype(np.float32)


def breaks(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str, int], Exception | None]) -> list[tuple[str, int]]:
    """Make graphs fail by name and batch size until the networks move to the CPU; returns the graphs that ran."""
    works, leaves = Graph.run, Engine._on_the_cpu
    calls: list[tuple[str, int]] = []
    moved: list[str] = []

    def run(self: Graph, **inputs: Any) -> Any:
        rows = len(next(iter(inputs.values())))
        error = None if moved else fails(self.name, rows)
        if error:
            raise error
        calls.append((self.name, rows))
        return works(self, **inputs)

    def on_the_cpu(self: Engine, device: Device, why: str) -> Networks:
        moved.append(why)
        return leaves(self, device, why)

    monkeypatch.setattr(Graph, "run", run)
    monkeypatch.setattr(Engine, "_on_the_cpu", on_the_cpu)
    return calls


def small_memory(limit: int) -> Callable[[str, int], Exception | None]:
    return lambda name, rows: DeviceMemoryError(f"{name}: out of memory") if rows > limit else None


def test_too_little_memory_makes_batches_smaller_and_changes_no_score(
    tiny: Bundle, crops: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Engine(tiny, PINNED, 40, 1).score_pictures(*crops)
    engine = Engine(tiny, PINNED, 40, 1)
    calls = breaks(monkeypatch, small_memory(16))
    found = engine.score_pictures(*crops)
    for name, output in (
        ("baseline", "probability"),
        ("scan", "probabilities"),
        ("moe", "features"),
        ("imagenet", "contribution"),
    ):
        assert np.array_equal(found[name][output], whole[name][output])
    assert [rows for name, rows in calls if name == "scan.onnx"] == [16, 16, 16]  # one shape, the last one padded
    assert engine.downgrades == ["batches of 16 instead of 40: baseline.onnx: out of memory"]


def test_too_little_memory_for_the_smallest_batch_is_6_or_a_move(
    tiny: Bundle, crops: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Engine(tiny, PINNED, 40, 1).score_pictures(*crops)
    breaks(monkeypatch, small_memory(0))
    with pytest.raises(DeviceMemoryError, match=r"baseline\.onnx: out of memory") as caught:
        Engine(tiny, PINNED, 40, 1).score_pictures(*crops)
    assert caught.value.exit_code == 6
    engine = Engine(tiny, PRETENDED, 40, 1)
    assert np.array_equal(engine.score_pictures(*crops)["moe"]["features"], whole["moe"]["features"])
    assert [text.partition(":")[0] for text in engine.downgrades] == [
        "batches of 16 instead of 40",
        "batches of 8 instead of 40",
        "moved from CPUExecutionProvider to CPUExecutionProvider",
    ]
    assert engine.device == Device(CPU, "a pretended GPU, then fell back to the CPU")


def test_two_threads_that_find_out_together_move_once(
    tiny: Bundle, crops: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both fail before either switches; the second uses the fallback that the first installed."""
    whole = Networks(tiny, PINNED, 40, 1).score_pictures(*crops)
    engine, works, meeting, failed = Engine(tiny, PRETENDED, 40, 2), Networks.score_pictures, threading.Barrier(2), [0]

    def fails(self: Networks, images: Any, clinical: Any) -> Any:
        if self.device is PRETENDED:
            failed[0] += 1
            meeting.wait(timeout=60)
            raise DeviceError("gone")
        return works(self, images, clinical)

    monkeypatch.setattr(Networks, "score_pictures", fails)
    with ThreadPoolExecutor(2) as pool:
        found = [future.result() for future in [pool.submit(engine.score_pictures, *crops) for _ in range(2)]]
    assert failed == [2]
    assert all(np.array_equal(one["moe"]["features"], whole["moe"]["features"]) for one in found)
    assert engine.downgrades == ["moved from CPUExecutionProvider to CPUExecutionProvider: gone"]


def test_too_little_memory_in_the_self_test_makes_batches_smaller(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny, PINNED, 64, 1)
    expected = engine.run_self_test()
    breaks(monkeypatch, small_memory(16))
    assert engine.run_self_test() == expected
    assert [text.partition(":")[0] for text in engine.downgrades] == [
        "batches of 32 instead of 64",
        "batches of 16 instead of 64",
    ]


def test_a_device_left_within_the_self_test_has_the_processors_digest(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures were scored by one device, patients by the other."""
    expected = Engine(tiny, PINNED, 8, 1).run_self_test()
    engine = Engine(tiny, PRETENDED, 8, 1)
    works: Callable[..., Any] = Networks.score_pictures

    def wrong(self: Networks, images: Any, clinical: Any) -> Any:
        seen = works(self, images, clinical)
        if self.device is PRETENDED:
            seen["baseline"]["probability"] = seen["baseline"]["probability"] + 1e-5
        return seen

    monkeypatch.setattr(Networks, "score_pictures", wrong)
    breaks(monkeypatch, lambda name, _: DeviceError(f"{name}: gone") if name == "moe_head.onnx" else None)
    assert engine.run_self_test() == expected


def test_a_graph_that_a_device_has_no_room_for_is_no_bad_bundle(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise RuntimeError(OUT_OF_MEMORY[0])

    monkeypatch.setattr("infer.engine.sessions.onnxruntime.InferenceSession", no_room)
    with pytest.raises(
        DeviceMemoryError, match=r"scan\.onnx: failed on CUDAExecutionProvider: .*out of memory"
    ) as caught:
        Graph("scan.onnx", tiny.graphs["scan.onnx"], Device(CUDA, "found"), 1)
    assert "hostname" not in str(caught.value)
    with pytest.raises(MemoryError, match=r"for scan\.onnx"):
        Graph("scan.onnx", tiny.graphs["scan.onnx"], PINNED, 1)


def test_a_device_that_gives_up_for_a_patient_is_left(
    tiny: Bundle, crops: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clinical = np.array([1.0, 5.0, 60.0])
    plain = Engine(tiny, PINNED, 8, 1)
    sums = sums_of(plain.members, plain.score_pictures(crops[0][:3], crops[1][:3]))
    whole = plain.score_patient(sums, clinical)
    breaks(monkeypatch, lambda name, _: DeviceError(f"{name}: gone") if name == "imagenet_head.onnx" else None)
    with pytest.raises(DeviceError, match="gone"):
        Engine(tiny, PINNED, 8, 1).score_patient(sums, clinical)
    engine = Engine(tiny, PRETENDED, 8, 1)
    assert engine.score_patient(sums, clinical) == whole
    assert engine.downgrades == ["moved from CPUExecutionProvider to CPUExecutionProvider: imagenet_head.onnx: gone"]


def test_a_device_that_computes_otherwise_is_left(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Engine(tiny, PINNED, 8, 1).run_self_test()
    works, tests = infer.engine.self_test.self_test, []

    def fails_first(networks: Networks, bundle: Bundle) -> str:
        tests.append(networks.device)
        if len(tests) == 1:
            raise BundleError("self-test failed")
        return works(networks, bundle)

    monkeypatch.setattr("infer.engine.fallback.self_test", fails_first)
    engine = Engine(tiny, PRETENDED, 8, 1)
    assert engine.run_self_test() == expected
    assert engine.downgrades == ["moved from CPUExecutionProvider to CPUExecutionProvider: self-test failed"]
    tests.clear()
    with pytest.raises(BundleError, match="self-test failed"):
        Engine(tiny, PINNED, 8, 1).run_self_test()


def test_a_processor_that_computes_otherwise_is_not_moved_to(
    tiny: Bundle, crops: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny, PRETENDED, 40, 1)
    breaks(monkeypatch, small_memory(0))

    def fails(*_: object) -> None:
        raise BundleError("self-test failed on the processor")

    monkeypatch.setattr("infer.engine.fallback.self_test", fails)
    with pytest.raises(BundleError, match="self-test failed on the processor"):
        engine.score_pictures(*crops)


def test_a_device_that_does_not_load_the_graphs_is_left(tiny: Bundle) -> None:
    """A session that runs on the CPU although CUDA was found."""
    with pytest.raises(DeviceError, match=r"baseline\.onnx: runs on CPUExecutionProvider"):
        Engine(tiny, Device(CUDA, "found"), 8, 1)
    engine = Engine(tiny, Device(CUDA, "found", may_move=True), None, 1)
    assert engine.device == Device(CPU, "found, then fell back to the CPU")
    assert (engine.batch_size, engine._networks.batch_size) == (
        256,
        8,
    )  # pictures are collected, and scored in small batches
    assert engine.downgrades[0].startswith("moved from CUDAExecutionProvider to CPUExecutionProvider: baseline.onnx")


@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_what_onnxruntime_says_of_memory_is_understood(tiny: Bundle, text: str) -> None:
    assert type(failure(tiny, CUDA, text)) is DeviceMemoryError
    assert type(failure(tiny, CUDA, "CUDA failure 700: an illegal memory access was encountered")) is DeviceError
    assert type(failure(tiny, CPU, text)) is MemoryError  # on a CPU this is not a device error
    assert type(failure(tiny, CPU, "memory layout")) is RuntimeError


def test_pictures_are_shared_among_graphs(bundle: Bundle, crops: tuple[Any, Any]) -> None:
    """An OrtValue instead of an array gives the same result; if a GPU cannot create one, it has failed."""
    images = crops[0][:8]
    graph = Graph("backbone.onnx", bundle.graphs["backbone.onnx"], PINNED, 1)
    assert shared(PINNED, images) is images
    value = onnxruntime.OrtValue.ortvalue_from_numpy(images)
    assert np.array_equal(graph.run(images=value)["features"], graph.run(images=images)["features"])
    with pytest.raises(DeviceError, match="the pictures: failed on CUDAExecutionProvider"):
        shared(Device(CUDA, "not here"), images)


def failure(tiny: Bundle, provider: str, text: str) -> Exception:
    class Session:
        def run(self, *_: object) -> None:
            raise RuntimeError(text)

    graph = Graph("scan.onnx", tiny.graphs["scan.onnx"], PINNED, 1)
    graph._session, graph._provider = Session(), provider
    with pytest.raises(Exception, match=r"memory|for scan\.onnx") as caught:
        graph.run(images=np.zeros((1, 112, 112, 3), np.uint8))
    return caught.value


def test_nodes_that_take_time_must_be_on_the_device() -> None:
    placed = [(CUDA, "Conv"), (CUDA, "Relu"), (CPU, "Shape"), (CPU, "Gather")]
    assert check_nodes("scan.onnx", placed, CUDA) == {CUDA: 2, CPU: 2}
    with pytest.raises(DeviceError, match=r"scan\.onnx: not all of it runs on CUDAExecutionProvider: 2 Conv on CPU"):
        check_nodes("scan.onnx", [*placed, (CPU, "Conv"), (CPU, "Conv")], CUDA)


def test_every_node_of_a_real_graph_is_seen(bundle: Bundle) -> None:
    graph = Graph("backbone.onnx", bundle.graphs["backbone.onnx"], PINNED, 1)
    assert graph.nodes[CPU] > 49  # convolutions of EfficientNet-Lite0
    with pytest.raises(DeviceError, match="49 Conv on CPUExecutionProvider"):
        check_nodes("backbone.onnx", infer.engine.sessions._placed(graph._session), CUDA)


def test_a_run_whose_device_gives_up_finishes_on_the_processor_and_says_so(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = score(pristine, tmp_path / "plain", bundle=TINY)
    scans = 0

    def third_batch(name: str, _: int) -> Exception | None:
        nonlocal scans
        scans += name == "scan.onnx"
        return DeviceError("scan.onnx: CUDA failure 999") if scans == 3 else None

    breaks(monkeypatch, third_batch)
    monkeypatch.setattr("infer.ready.choose_device", lambda *_: PRETENDED)
    outcome = score(pristine, tmp_path / "out", bundle=TINY, device="auto")
    assert (outcome.code, outcome.csv_bytes) == (0, plain.csv_bytes)
    expected = ["moved from CPUExecutionProvider to CPUExecutionProvider: scan.onnx: CUDA failure 999"]
    assert outcome.record["downgrades"] == expected
    assert outcome.record["device"]["note"] == "a pretended GPU, then fell back to the CPU"
    assert expected[0] in (tmp_path / "out/run.log").read_text()


def test_what_an_earlier_start_did_without_stands_in_the_record(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = Results.write

    def write(self: Results, *arguments: Any) -> None:
        writes(self, *arguments)
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr("infer.ready.choose_device", lambda *_: PRETENDED)
        patch.setattr(Results, "write", write)
        breaks(patch, lambda name, _: DeviceError(f"{name}: gone") if name == "moe_head.onnx" else None)
        with pytest.raises(Cut):
            score(pristine, tmp_path, bundle=TINY)
    record = score(pristine, tmp_path, bundle=TINY).record
    assert record["kept_from_earlier_starts"] == 1
    assert record["downgrades"] == ["moved from CPUExecutionProvider to CPUExecutionProvider: moe_head.onnx: gone"]
