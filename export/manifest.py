"""A bundle's manifest, from a run folder and its exported graphs."""

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from export.members.member import MemberExport
from export.parity import ParityError
from export.precision.proof import TOLERANCE, check
from export.reference import make_reference
from infer import __version__
from infer.bundle.load import Bundle, checksums
from infer.bundle.manifest import (
    SCHEMA,
    Drift,
    Ensemble,
    Magnification,
    Manifest,
    Provenance,
    Reduced,
    SelfTest,
    load_members,
    reduced_outputs,
)
from infer.cohort.patient import Cohort
from infer.cohort.plausible import Range
from infer.engine.networks import Networks
from infer.engine.self_test import self_test_images, self_test_outputs
from infer.engine.sessions import CPU, CUDA, Device
from infer.machine.processors import available_processors
from infer.members.member import Precision
from train.core.onnx_graph import OPSET
from train.data.bags import CROP_SIZE, Bags
from train.data.labelled import PLAUSIBLE
from train.members.imagenet import MAGNIFICATION

SELF_TEST_SEED = 20190701
SELF_TEST_CLINICAL = [
    [0.0, 4.5, 40.0], [1.0, 7.5, 60.0], [0.0, 20.0, 75.0], [1.0, 120.0, 85.0],
    [1.0, 5.5, 30.0], [0.0, 6.5, 50.0], [1.0, 12.0, 70.0], [0.0, 50.0, 90.0],
]  # fmt: skip
SELF_TEST_IMAGES = len(SELF_TEST_CLINICAL)
# Between processors convolutions round differently; a wrong graph or a broken kernel is off by far more.
SELF_TEST_TOLERANCE = {CPU: 1e-4, CUDA: 1e-3}


def picture_sizes(bags: Bags) -> tuple[Range, ...]:
    """Width and height, in pixels, of the pictures that an analyser gives; none if the run folder does not say.

    They are those of the training pictures, or what --picture-size said.
    """
    given, found = bags.facts.get("picture_size"), bags.facts.get("picture_sizes")
    if given:
        width, height = map(float, given.split(" x "))
        return Range(width, width), Range(height, height)
    if not found:
        return ()
    narrowest, widest, lowest, highest = map(float, found.split())
    return Range(narrowest, widest), Range(lowest, highest)


def pixel_size(bags: Bags) -> float | None:
    """Micrometres that a pixel of the training pictures covers, as --pixel-size said; None if nothing did."""
    given = bags.facts.get("pixel_size")
    return float(given) if given else None


def make_manifest(
    run: Path, bags: Bags, members: Sequence[MemberExport], graphs: dict[str, bytes], weak: str = ""
) -> Manifest:
    """The manifest without what the graphs say.

    Args:
        weak: why the bundle should not have been exported; empty if it should.
    """
    options = json.loads((run / "options.json").read_text())
    colours = bags.mean_colours()
    numbers = {name: value for member in members for name, value in member.numbers().items()}
    return Manifest(
        schema=SCHEMA,
        provenance=Provenance(
            code_version=__version__,
            created=dt.datetime.now(dt.UTC).date().isoformat(),
            recipe=options["recipe"]["name"],
            seed=options["seed"],
            reference_date=bags.facts["reference_date"],
            table_sha256=bags.facts["table_sha256"],
            data_summary={
                "patients": len(bags),
                "malignant": int(bags.labels.sum()),
                "reactive": int((bags.labels == 0).sum()),
                "images": len(bags.crops),
            },
            options=_flat(_each_once(options["recipe"], numbers)),
            weak=weak,
        ),
        graphs=_digests(graphs),
        opset=OPSET,
        crop_size=CROP_SIZE,
        magnification=Magnification(network_size=MAGNIFICATION.size, pixel_size=pixel_size(bags)),
        members={member.name: member.section() for member in members},
        ensemble=msgspec.json.decode((run / "ensemble/ensemble.json").read_bytes(), type=Ensemble),
        plausible=PLAUSIBLE,
        drift=Drift(colours.mean(axis=0).tolist(), *picture_sizes(bags)),
        reference=make_reference(run, bags, members),
        self_test=SelfTest(
            seed=SELF_TEST_SEED,
            images=SELF_TEST_IMAGES,
            clinical=SELF_TEST_CLINICAL,
            expected={},
            tolerance=SELF_TEST_TOLERANCE,
        ),
        int8=None,
    )


def with_expected_outputs(manifest: Manifest, graphs: dict[str, bytes]) -> Manifest:
    expected = _outputs(manifest, graphs, "float32")
    return msgspec.structs.replace(manifest, self_test=msgspec.structs.replace(manifest.self_test, expected=expected))


def with_reduced(manifest: Manifest, graphs: dict[str, bytes], cohort: Cohort, precision: Precision) -> Manifest:
    """The manifest with what a precision changes. A bundle none of whose members has such graphs gets nothing.

    Raises:
        ParityError: it changes what it should not, or too much.
    """
    members = load_members(manifest)
    moved = reduced_outputs(members, precision)
    if not moved:
        return manifest
    # Both computed here: a stored output may be another processor's, which rounds otherwise.
    exact, found = (_outputs(manifest, graphs, one) for one in ("float32", precision))
    strays = [name for name, values in found.items() if name not in moved and values != exact[name]]
    if strays:
        raise ParityError(f"{precision} changes {', '.join(strays)}")
    reduced = Reduced(
        expected={name: found[name] for name in moved},
        tolerance=dict.fromkeys(moved, TOLERANCE),
        patients=0,
        largest_change=0.0,
        changed_decisions=0,
    )
    manifest = msgspec.structs.replace(manifest, graphs=_digests(graphs), **{precision: reduced})
    change = check(Bundle(Path(), "", manifest, graphs), cohort, precision)
    shown = {"patients": change.patients, "largest_change": change.probability, "changed_decisions": change.decisions}
    return msgspec.structs.replace(manifest, **{precision: msgspec.structs.replace(reduced, **shown)})


def _outputs(manifest: Manifest, graphs: dict[str, bytes], precision: Precision) -> dict[str, list[float]]:
    """What the graphs make of the self-test's pictures."""
    test = manifest.self_test
    bundle = Bundle(Path(), "", manifest, graphs)
    networks = Networks(bundle, Device(CPU, "export"), test.images, available_processors(), precision)
    images = self_test_images(test.seed, test.images, manifest.crop_size, manifest.drift.rgb_mean)
    outputs = self_test_outputs(networks, images, np.array(test.clinical, dtype=np.float32))
    return {name: [float(value) for value in values] for name, values in outputs.items()}


def _digests(graphs: dict[str, bytes]) -> dict[str, str]:
    return {name: checksums({name: data}).decode().split()[0] for name, data in graphs.items()}


def _each_once(recipe: dict[str, Any], numbers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The recipe and what each member was fitted with, less the parts of the recipe that a member states as well."""
    stated = [part for of_member in numbers.values() for part in of_member.items()]
    return {name: part for name, part in recipe.items() if (name, part) not in stated} | numbers


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat
