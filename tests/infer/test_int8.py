"""The backbone in int8: used if it computes correctly, otherwise float32."""

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from infer.bundle.load import CHECKSUMS, REFERENCE, Bundle, checksums, load_bundle
from infer.bundle.manifest import (
    MANIFEST,
    Manifest,
    Reduced,
    decode,
    encode,
    load_members,
    reduced_outputs,
    stand_ins,
)
from infer.engine.fallback import Engine
from infer.engine.networks import Networks
from infer.engine.self_test import self_test
from infer.engine.sessions import CPU, Device
from infer.errors import BundleError
from tests.bundles import INT8, INT8_OUTPUTS
from tests.float32 import in_float32
from tests.infer.manifests import make_manifest
from tests.infer.runs import Outcome, score

DEVICE = Device(CPU, "test")


def of(bundle: Bundle) -> Reduced:
    assert bundle.manifest.int8 is not None
    return bundle.manifest.int8


def with_int8(bundle: Bundle, **changes: object) -> Bundle:
    int8 = msgspec.structs.replace(of(bundle), **changes)
    return dataclasses.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, int8=int8))


def expecting(bundle: Bundle, name: str, change: float) -> Bundle:
    """Change one value of the self-test in int8, as a CPU does that computes it wrongly."""
    values = list(of(bundle).expected[name])
    values[-1] += change
    return with_int8(bundle, expected=of(bundle).expected | {name: values})


def written(bundle: Bundle, folder: Path) -> Path:
    folder.mkdir()
    files = {path.name: path.read_bytes() for path in bundle.folder.iterdir() if path.name != CHECKSUMS}
    files[MANIFEST] = encode(bundle.manifest)
    for name, data in {**files, CHECKSUMS: checksums(files)}.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def float32(bundle: Bundle, pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The pristine cohort, scored without int8."""
    folder = tmp_path_factory.mktemp("float32")
    return score(pristine, folder / "out", bundle=in_float32(bundle, folder / "bundle").folder)


def numbers(outcome: Outcome) -> list[dict[str, str]]:
    """predictions.csv without the bundle ID."""
    return [{name: value for name, value in row.items() if name != "bundle"} for row in outcome.predictions.values()]


def test_a_processor_uses_integers_and_says_so(bundle: Bundle, plain: Outcome, float32: Outcome) -> None:
    assert str(Engine(bundle, DEVICE, None, 1)) == f"{CPU} (test), int8"
    assert (plain.record["device"]["precision"], plain.record["downgrades"]) == ("int8", [])
    assert (float32.record["device"]["precision"], float32.record["downgrades"]) == ("float32", [])


def test_integers_change_what_stands_on_the_backbone_and_little(plain: Outcome, float32: Outcome) -> None:
    """The ranges were not calibrated on generated pictures: real ones change by less than half of this."""
    for member, least, most in (("moe", 1e-5, 0.05), ("imagenet", 1e-5, 0.05), ("baseline", 0.0, 0.0)):
        name = f"{member}_probability"
        pairs = zip(numbers(plain), numbers(float32), strict=True)
        largest = max(abs(float(a[name]) - float(b[name])) for a, b in pairs)
        assert least <= largest <= most, name
    classes = [[row["cell_class"] for row in outcome.images] for outcome in (plain, float32)]
    assert np.mean(np.array(classes[0]) != np.array(classes[1])) < 0.1


def test_a_processor_that_computes_integers_wrongly_gets_float32(
    bundle: Bundle, pristine: Path, float32: Outcome, tmp_path: Path
) -> None:
    altered = expecting(bundle, "moe", 0.01)
    outcome = score(pristine, tmp_path / "out", bundle=written(altered, tmp_path / "bundle"))
    assert outcome.code == 0
    assert numbers(outcome) == numbers(float32)
    assert outcome.record["device"]["precision"] == "float32"
    (said,) = outcome.record["downgrades"]
    assert said.startswith("float32 instead of int8: ")
    assert said.endswith(f"self-test failed on {CPU} in int8: moe differs by 0.01, 0.005 is allowed")
    assert said in (outcome.out / "run.log").read_text()


def test_integers_that_give_no_number_get_float32(bundle: Bundle) -> None:
    engine = Engine(expecting(bundle, "moe", float("nan")), DEVICE, None, 2)
    digest = engine.run_self_test()
    assert (engine.precision, len(engine.downgrades)) == ("float32", 1)
    assert digest == self_test(Networks(bundle, DEVICE, 8, 1), bundle)


def test_float32_has_its_own_self_test(bundle: Bundle) -> None:
    """Both precisions are wrong: the bundle does not work on this machine."""
    wrong = expecting(bundle, "moe", 0.01)
    test = wrong.manifest.self_test
    expected = test.expected | {"moe": [value + 0.01 for value in test.expected["moe"]]}
    test = msgspec.structs.replace(test, expected=expected)
    wrong = dataclasses.replace(wrong, manifest=msgspec.structs.replace(wrong.manifest, self_test=test))
    engine = Engine(wrong, DEVICE, None, 2)
    with pytest.raises(BundleError, match=rf"self-test failed on {CPU}: moe differs") as caught:
        engine.run_self_test()
    assert caught.value.exit_code == 5


def test_what_integers_do_not_touch_is_tested_as_in_float32(bundle: Bundle) -> None:
    members = load_members(bundle.manifest)
    assert stand_ins(members, "int8") == {"backbone.onnx": INT8}
    assert set(of(bundle).expected) == set(reduced_outputs(members, "int8")) == set(INT8_OUTPUTS)
    test = bundle.manifest.self_test
    # Within the tolerance of int8.
    moved = test.expected | {"baseline": [value + 3e-4 for value in test.expected["baseline"]]}
    altered = msgspec.structs.replace(bundle.manifest, self_test=msgspec.structs.replace(test, expected=moved))
    networks = Networks(bundle, DEVICE, 8, 1, "int8")
    with pytest.raises(BundleError, match="baseline differs"):
        self_test(networks, dataclasses.replace(bundle, manifest=altered))


def test_integers_that_cannot_be_loaded_get_float32(bundle: Bundle) -> None:
    broken = dataclasses.replace(bundle, graphs=bundle.graphs | {INT8: b"no graph"})
    engine = Engine(broken, DEVICE, None, 2)
    engine.run_self_test()
    assert engine.precision == "float32"
    (said,) = engine.downgrades
    assert said.startswith(f"float32 instead of int8: {INT8}: onnxruntime cannot load this graph")


def test_a_score_hangs_neither_on_threads_nor_on_batches(bundle: Bundle) -> None:
    crops = np.random.RandomState(5).randint(0, 256, (16, 112, 112, 3)).astype(np.uint8)
    clinical = np.ones((16, 3), np.float32)
    networks = [
        Networks(bundle, DEVICE, batch, threads, "int8") for batch, threads in ((16, 1), (16, 2), (8, 1), (1, 1))
    ]
    whole = networks[0].score_pictures(crops, clinical)["moe"]["features"]
    assert np.array_equal(networks[1].score_pictures(crops, clinical)["moe"]["features"], whole)
    assert np.array_equal(networks[2].score_pictures(crops[8:], clinical[8:])["moe"]["features"], whole[8:])
    assert np.array_equal(networks[3].score_pictures(crops[5:6], clinical[5:6])["moe"]["features"], whole[5:6])


def test_a_bundle_without_integers_is_whole(bundle: Bundle, tmp_path: Path) -> None:
    loaded = in_float32(bundle, tmp_path / "bundle")
    assert loaded.manifest.int8 is None
    assert INT8 not in loaded.graphs
    engine = Engine(loaded, DEVICE, None, 1)
    engine.run_self_test()
    assert (engine.precision, engine.downgrades) == ("float32", [])


def problem(manifest: Manifest) -> str:
    with pytest.raises(BundleError) as caught:
        decode(encode(manifest), "here")
    return str(caught.value)


def test_the_graph_and_what_is_known_of_it_go_together() -> None:
    manifest = complete_manifest()
    more = msgspec.structs.replace(manifest, graphs=manifest.graphs | {INT8: "0" * 64})
    assert "graphs are not " in problem(more)
    assert "graphs are not " in problem(msgspec.structs.replace(manifest, int8=GOOD))
    decode(encode(msgspec.structs.replace(more, int8=GOOD)), "here")


EXPECTED = {name: [0.5, 0.5] for name in INT8_OUTPUTS}
ALLOWED = dict.fromkeys(INT8_OUTPUTS, 0.005)
GOOD = Reduced(EXPECTED, ALLOWED, patients=1, largest_change=0.01, changed_decisions=0)


def complete_manifest() -> Manifest:
    """Two pictures, with one value per output."""
    manifest = make_manifest()
    test = msgspec.structs.replace(manifest.self_test, expected=manifest.self_test.expected | EXPECTED)
    return msgspec.structs.replace(manifest, self_test=test)


@pytest.mark.parametrize(
    "changes",
    [
        {"tolerance": ALLOWED | {"moe": 0.0}}, {"tolerance": ALLOWED | {"moe": 0.02}}, {"tolerance": {}},
        {"tolerance": ALLOWED | {"moe_features": 1.5}}, {"tolerance": ALLOWED | {"baseline": 0.005}}, {"expected": {}},
        {"expected": EXPECTED | {"unheard of": []}, "tolerance": ALLOWED | {"unheard of": 0.005}},
        {"expected": EXPECTED | {"baseline": [0.05] * 2}, "tolerance": ALLOWED | {"baseline": 0.005}},
        {"expected": EXPECTED | {"moe": [0.5]}}, {"patients": 0}, {"changed_decisions": 1}, {"largest_change": 0.02},
    ],
)  # fmt: skip
def test_integers_without_a_proof_or_a_test_are_refused(changes: dict[str, object]) -> None:
    manifest = complete_manifest()
    graphs = manifest.graphs | {INT8: "0" * 64}
    wrong = msgspec.structs.replace(manifest, graphs=graphs, int8=msgspec.structs.replace(GOOD, **changes))
    assert "int8 must state " in problem(wrong)


def test_what_ships_kept_its_proof() -> None:
    """As stated in the card; tests/export/test_reference.py scores real patients in both precisions again."""
    stated = load_bundle(REFERENCE).manifest.int8
    assert stated
    assert (stated.patients, stated.changed_decisions) == (24, 0)
    assert stated.largest_change <= 0.01


def test_the_bundle_that_ships_is_no_larger_than_it_may_be() -> None:
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) <= 40e6
