"""Packs a run folder into a bundle: graphs, manifest, card, checksums; written whole or not at all."""

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.card.write import CardWords, write_card
from export.graphs import export_graph
from export.manifest import make_manifest, with_expected_outputs, with_reduced
from export.members import registry
from export.members.backbone import backbone, features_of
from export.members.member import Inputs, MemberExport
from export.parity import check_parity
from export.precision.int8 import quantize
from export.precision.proof import calibration_crops
from export.publish import check_target, publish
from infer.bundle.load import CARD, CHECKSUMS, Bundle, checksums
from infer.bundle.manifest import (
    MANIFEST,
    encode,
    load_members,
    stand_ins,
)
from infer.cohort.patients import read_cohort
from infer.errors import UsageError
from train.data.bags import Bags, load_crops
from train.data.labelled import PLAUSIBLE
from train.ensemble.fit import input_digests
from train.members import registry as trained
from train.members.training import NUMBERS, MemberTraining, digest


def export_bundle(
    run: Path,
    folder: Path,
    *,
    replace: bool,
    about: str = "",
    patients: Path | None = None,
    weak: str = "",
    earlier: Path | None = None,
) -> Bundle:
    """Export a finished run.

    Args:
        about: what the exporter knows of the data and the recipe and this program cannot; it goes into the card.
        patients: a cohort. If none of its patients gets another decision in int8, and hardly another probability,
            the bundle has that too.
        weak: why it should not have been exported, if it should not.
        earlier: a bundle of the same training, from whose card nested results are taken if the run has none.

    Raises:
        UsageError: the run is not finished, its pictures were segmented, or the folder is not empty and may not be
            replaced.
        ParityError: a graph does not compute what its network computes, or int8 changes a patient too much.
        CohortError: the cohort cannot be read.
    """
    folder = folder.resolve()
    check_target(folder, replace)
    check_finished(run)
    bags = load_crops(run)
    cohort = read_cohort(patients, PLAUSIBLE, reference_date=_date(bags)) if patients else None
    if bags.facts["segmented"] == "yes":
        raise UsageError(
            f"{run}: was trained on segmented pictures (--segment), which scoring does not do: train without it"
        )
    there = {member.name for member in trained.present(run)}
    members = [kind.load(run) for kind in registry.MEMBERS if kind.name in there]
    plans = list({plan.name: plan for member in members for plan in member.plans}.values())  # the backbone once
    graphs = {plan.name: export_graph(plan) for plan in plans}
    inputs = parity_inputs(bags, members)
    unbounded = frozenset[str]().union(*(member.unbounded for member in members))
    difference = check_parity(plans, graphs, inputs, unbounded)
    words = CardWords(
        difference,
        [member.card(run) for member in members],
        _noted(members, inputs),
        partial(_nested_is_current, run),
    )
    manifest = make_manifest(run, bags, members, graphs, weak)
    manifest = with_expected_outputs(manifest, graphs)
    if cohort:
        crops = calibration_crops(bags)
        shipped = load_members(manifest)
        # The backbone is the only network with a graph in integers.
        graphs |= {other: quantize(backbone(), crops) for other in stand_ins(shipped, "int8").values()}
        manifest = with_reduced(manifest, graphs, cohort, "int8")
    data = encode(manifest)
    files = {**graphs, MANIFEST: data, CARD: write_card(run, manifest, data, words, about, earlier).encode()}
    return publish({**files, CHECKSUMS: checksums(files)}, folder)


def check_finished(run: Path) -> None:
    """The ensemble must have been fitted on exactly the members that lie beside it.

    Raises:
        UsageError: it was not.
    """
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
    features = features_of(images)
    return {file: of for member in members for file, of in member.inputs(images, clinical, features).items()}


def _nested_is_current(run: Path, facts: Mapping[str, Any]) -> bool:
    """Whether nested results with these facts are of the members as the run folder has them."""
    return all(facts.get(f"{member.name}_sha256") == _trained_with(run, member) for member in trained.present(run))


def _trained_with(run: Path, member: MemberTraining) -> str:
    """SHA-256 of the numbers that a member was trained with.

    Only members that are fitted again when their numbers change write them down. Another one's are in the options that
    the run folder was started with, because no training with other options is let into it.
    """
    path = run / member.folder / NUMBERS
    if path.exists():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    options = json.loads((run / "options.json").read_text())
    return digest({member.name: options["recipe"].get(member.name), "seed": options["seed"]})


def _noted(members: Sequence[MemberExport], inputs: dict[str, Inputs]) -> list[str]:
    return [sentence for member in members for sentence in member.noted(inputs)]


def _date(bags: Bags) -> dt.date | None:
    """At which the training patients' ages were taken where they have no sample date."""
    found = re.search(r"\d{4}-\d\d-\d\d$", bags.facts["reference_date"])
    return dt.date.fromisoformat(found[0]) if found else None
