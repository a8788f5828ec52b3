"""Packs a run folder into a bundle: graphs, manifest, card, checksums; written whole or not at all."""

import datetime as dt
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from export.card.write import CardWords, write_card
from export.graphs import OPSET, export_graph
from export.members import registry
from export.members.member import Inputs, MemberExport
from export.parity import ParityError, check_parity
from export.precision.float16 import halve, on_a_gpu
from export.precision.proof import calibration_crops, check, tolerance
from infer import __version__
from infer.bundle.load import CARD, CHECKSUMS, Bundle, checksums, load_bundle
from infer.bundle.manifest import (
    MANIFEST,
    SCHEMA,
    Drift,
    Ensemble,
    Manifest,
    Provenance,
    Reduced,
    SelfTest,
    encode,
    load_members,
    reduced_outputs,
    stand_ins,
)
from infer.cohort.patients import Cohort, read_cohort
from infer.cohort.plausible import Range
from infer.engine.networks import Networks
from infer.engine.self_test import self_test, self_test_images, self_test_outputs
from infer.engine.sessions import CPU, CUDA, Device
from infer.errors import UsageError
from infer.machine.disk import sync
from infer.machine.processors import available_processors
from infer.members.member import Precision
from train.data.crops import CROP_SIZE, PLAUSIBLE, Bags, load_crops
from train.ensemble.fit import input_digests

SELF_TEST_SEED = 20190701
SELF_TEST_CLINICAL = [
    [0.0, 4.5, 40.0], [1.0, 7.5, 60.0], [0.0, 20.0, 75.0], [1.0, 120.0, 85.0],
    [1.0, 5.5, 30.0], [0.0, 6.5, 50.0], [1.0, 12.0, 70.0], [0.0, 50.0, 90.0],
]  # fmt: skip
SELF_TEST_IMAGES = len(SELF_TEST_CLINICAL)
# Between processors convolutions round differently; a wrong graph or a broken kernel is off by far more.
SELF_TEST_TOLERANCE = {CPU: 1e-4, CUDA: 1e-3}


def export_bundle(run: Path, folder: Path, *, replace: bool, about: str = "", patients: Path | None = None) -> Bundle:
    """Export a finished run.

    Args:
        about: what the exporter knows of the data and the recipe and this program cannot; it goes into the card.
        patients: a cohort. If none of its patients gets another decision in int8 or float16, and hardly another
            probability, the bundle has these too.

    Raises:
        UsageError: the run is not finished, its pictures were segmented, or the folder is not empty and may not be
            replaced.
        ParityError: a graph does not compute what its network computes, or int8 or float16 change a patient too much.
        CohortError: the cohort cannot be read.
    """
    folder = folder.resolve()
    _check_target(folder, replace)
    _check_finished(run)
    bags = load_crops(run)
    cohort = read_cohort(patients, PLAUSIBLE, reference_date=_date(bags)) if patients else None
    if bags.facts["segmented"] == "yes":
        raise UsageError(
            f"{run}: was trained on segmented pictures (--segment), which scoring does not do: train without it"
        )
    members = [kind(run) for kind in registry.MEMBERS]
    plans = [plan for member in members for plan in member.plans]
    graphs = {plan.name: export_graph(plan) for plan in plans}
    inputs = parity_inputs(bags, members)
    unbounded = frozenset[str]().union(*(member.unbounded for member in members))
    difference = check_parity(plans, graphs, inputs, unbounded)
    words = CardWords(difference, [member.described() for member in members], _noted(members, inputs))
    manifest = _manifest(run, bags, members, graphs)
    manifest = _with_expected_outputs(manifest, graphs)
    if cohort:
        crops = calibration_crops(bags)
        for member in members:
            graphs |= member.int8(crops)
        instead = stand_ins(load_members(manifest), "float16")
        graphs |= {other: halve(file, graphs[file]) for file, other in instead.items()}
        emulated = on_a_gpu(Bundle(Path(), "", manifest, graphs)).graphs
        manifest = _with_reduced(manifest, graphs, graphs, cohort, "int8")
        manifest = _with_reduced(manifest, graphs, emulated, cohort, "float16")
    data = encode(manifest)
    files = {**graphs, MANIFEST: data, CARD: write_card(run, manifest, data, words, about).encode()}
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, content in {**files, CHECKSUMS: checksums(files)}.items():
        with (part / name).open("wb") as file:
            file.write(content)
            file.flush()
            sync(file.fileno())
    sync(part)
    bundle = load_bundle(part)
    precisions: tuple[Precision, ...] = ("float32", *bundle.manifest.precisions)
    for precision in precisions:
        networks = Networks(bundle, Device(CPU, "export"), SELF_TEST_IMAGES, available_processors(), precision)
        self_test(networks, bundle)
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)  # of an earlier call that was cut off
        os.replace(folder, old)
        os.replace(part, folder)
        shutil.rmtree(old)
    else:
        os.replace(part, folder)
    return load_bundle(folder)


def _check_target(folder: Path, replace: bool) -> None:
    held = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if held and not replace:
        raise UsageError(f"{folder}: is not empty. Name another folder, or --replace it")
    foreign = held - _files_of_bundle(folder)
    if foreign:
        raise UsageError(f"{folder}: holds {min(foreign)}, which belongs to no bundle. Name another folder")


def _files_of_bundle(folder: Path) -> set[str]:
    """The files that a bundle in this folder consists of, by its checksums; none if there is no bundle."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return set()
    return {CHECKSUMS, *(line.partition("  ")[2] for line in lines)}


def _check_finished(run: Path) -> None:
    """The ensemble must have been fitted on exactly the members that lie beside it."""
    folder = run / "ensemble"
    for name in ("ensemble.json", "metrics.json", "inputs.json"):
        if not (folder / name).exists():
            raise UsageError(f"{run}: has no ensemble/{name}. Run `python -m train all` first")
    fitted_on = json.loads((folder / "inputs.json").read_text())
    now = input_digests(run)
    changed = [name for name in sorted(fitted_on.keys() | now.keys()) if fitted_on.get(name) != now.get(name)]
    if changed:
        raise UsageError(
            f"{run}: {', '.join(changed)} changed after the ensemble. Run `python -m train ensemble` again"
        )


def parity_inputs(bags: Bags, members: Sequence[MemberExport]) -> dict[str, Inputs]:
    """64 of the run's own pictures, spread over its patients, and their patients' clinical values."""
    chosen = np.linspace(0, len(bags.crops) - 1, 64).astype(np.int64)
    images = bags.crops[torch.from_numpy(chosen)]
    clinical = torch.from_numpy(bags.clinical[bags.patient_of_image()[chosen]])
    return {file: of for member in members for file, of in member.inputs(images, clinical).items()}


def _noted(members: Sequence[MemberExport], inputs: dict[str, Inputs]) -> list[str]:
    return [sentence for member in members for sentence in member.noted(inputs)]


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


def _manifest(run: Path, bags: Bags, members: Sequence[MemberExport], graphs: dict[str, bytes]) -> Manifest:
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
            options=_flat(options["recipe"] | numbers),
        ),
        graphs=_digests(graphs),
        opset=OPSET,
        crop_size=CROP_SIZE,
        members={member.name: member.section() for member in members},
        ensemble=msgspec.json.decode((run / "ensemble/ensemble.json").read_bytes(), type=Ensemble),
        plausible=PLAUSIBLE,
        drift=Drift(colours.mean(axis=0).tolist(), colours.std(axis=0, ddof=1).tolist(), *picture_sizes(bags)),
        self_test=SelfTest(
            seed=SELF_TEST_SEED,
            images=SELF_TEST_IMAGES,
            clinical=SELF_TEST_CLINICAL,
            expected={},
            tolerance=SELF_TEST_TOLERANCE,
        ),
        int8=None,
        float16=None,
    )


def _with_expected_outputs(manifest: Manifest, graphs: dict[str, bytes]) -> Manifest:
    expected = _outputs(manifest, graphs, "float32")
    return msgspec.structs.replace(manifest, self_test=msgspec.structs.replace(manifest.self_test, expected=expected))


def _with_reduced(
    manifest: Manifest, graphs: dict[str, bytes], scored: dict[str, bytes], cohort: Cohort, precision: Precision
) -> Manifest:
    """With what is known of a precision from `scored`, which stand here for the graphs that ship."""
    exact, found = manifest.self_test.expected, _outputs(manifest, scored, precision)
    members = load_members(manifest)
    moved = reduced_outputs(members, precision)
    strays = [name for name, values in found.items() if name not in moved and values != exact[name]]
    if strays:
        raise ParityError(f"{precision} changes {', '.join(strays)}")
    reduced = Reduced(
        expected={name: found[name] for name in moved},
        tolerance=tolerance(members, precision, exact, found),
        patients=0,
        largest_change=0.0,
        changed_decisions=0,
    )
    manifest = msgspec.structs.replace(manifest, graphs=_digests(graphs), **{precision: reduced})
    change = check(Bundle(Path(), "", manifest, scored), cohort, precision)
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


def _date(bags: Bags) -> dt.date | None:
    """At which the training patients' ages were taken where they have no sample date."""
    found = re.search(r"\d{4}-\d\d-\d\d$", bags.facts["reference_date"])
    return dt.date.fromisoformat(found[0]) if found else None


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in options.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat
