"""Cell classes and SimCLR features from a SCAN trained only on the pictures of a model's training patients."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from infer.members.features import cell_classes
from train.core.arrays import Classes, Floats, Indices
from train.core.files import locked, written_whole
from train.data.bags import Bags
from train.data.whose_pictures import COLUMNS, NOBODY
from train.evaluation.nested import leads
from train.evaluation.nested.leads import clinical_features
from train.members.candidate import Candidate
from train.members.linear import COMPONENTS, STRENGTHS
from train.members.recipes import ScanRecipe
from train.members.scan.measures import Collapse
from train.members.scan.network import embed_all
from train.members.scan.stages import load_backbone, load_fusion, load_scan, look, train_scan

LOG = logging.getLogger("lympho")

ATTEMPTS = 3


@dataclass(frozen=True)
class Look:
    """The output, for all pictures and last for a blank one, of a SCAN trained on some patients."""

    classes: Classes  # (N + 1,) cell classes
    simclr: npt.NDArray[np.float32]  # (P + 1, 512) mean and standard deviation of the pretext's features per patient


Looker = Callable[[Indices], Look]


def inductive_looks(bags: Bags, folder: Path, recipe: ScanRecipe, seed: int, device: torch.device) -> Looker:
    """A function from training patients to the output for all patients of a SCAN trained only on their pictures.

    SCAN is trained once for each set of patients, in a folder named by their hash, and its output is cached there. If
    SCAN collapses it is trained with the next seed, at most ATTEMPTS times in total.
    """

    def looks(training: Indices) -> Look:
        some = bags.of(np.sort(training))
        own = folder / hashlib.sha256(json.dumps(some.patient_ids).encode()).hexdigest()[:16]
        path = own / "seen.npz"
        own.mkdir(parents=True, exist_ok=True)
        with locked(own / "lock"):  # a task of another member may need the same training in another process
            if not path.exists():
                _keep(path, _look(bags, _trained(some, own, recipe, seed, device), device))
        with np.load(path) as kept:
            return Look(kept["classes"], kept["simclr"])

    return looks


def simclr_member(bags: Bags, name: str, looks: Looker, facts: Mapping[str, Any]) -> Candidate:
    """`leads.embedded` with dispersion, on SimCLR features learnt only from the training patients' pictures."""
    clinical = clinical_features(bags)

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        del checkpoint
        return leads.judged_by_pictures(bags, clinical, looks(training).simclr.astype(np.float64), training, asked)

    numbers = {"components": COMPONENTS, "strengths": STRENGTHS, "columns": COLUMNS}
    return Candidate(name, {**numbers, **facts}, predict, repeated=False)


def _look(bags: Bags, run: Path, device: torch.device) -> Look:
    network, fusion = load_scan(run / "scan" / "scan.safetensors"), np.array(load_fusion(run))
    backbone = load_backbone(run / "scan" / "pretext.safetensors").to(device)
    seen = (bags.crops, bags.pictures(NOBODY))
    classes = [cell_classes(look(network, pictures, device)[1][0].numpy(), fusion)[0] for pictures in seen]
    own, blank = (embed_all(backbone, pictures, device).numpy() for pictures in seen)
    parts = [own[start:stop] for start, stop in bags.ranges()] + [blank]
    simclr = np.stack([np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in parts])
    return Look(np.concatenate(classes), simclr)


def _keep(path: Path, seen: Look) -> None:
    with written_whole(path) as part, part.open("wb") as file:
        np.savez(file, classes=seen.classes, simclr=seen.simclr)


def _trained(some: Bags, folder: Path, recipe: ScanRecipe, seed: int, device: torch.device) -> Path:
    """The run folder of the first attempt that did not collapse.

    Raises:
        Collapse: all attempts collapsed.
    """
    for attempt in range(ATTEMPTS):
        run = folder / f"attempt-{attempt}"
        try:
            if not (run / "scan" / "stages.csv").exists():
                train_scan(some, run, recipe, seed + attempt, device)
            return run
        except Collapse as error:
            LOG.warning("nested: SCAN on %d patients, seed %d: %s", len(some), seed + attempt, error)
    raise Collapse(
        f"nested: SCAN collapsed on {len(some)} patients with {ATTEMPTS} seeds. Train longer or omit --inductive"
    )
