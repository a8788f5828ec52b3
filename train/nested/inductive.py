"""Cell classes for a model of some patients, SCAN trained on their pictures alone."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from infer.features import cell_classes
from train.crops import Bags
from train.nested.plan import Indices
from train.recipes import ScanRecipe
from train.scan.measures import Collapse
from train.scan.stages import load_fusion, load_scan, look, train_scan

LOG = logging.getLogger("lympho")

ATTEMPTS = 3

Classes = npt.NDArray[np.int64]


def bags_of(bags: Bags, patients: Indices) -> Bags:
    """Some patients alone, in the order given."""
    images = np.concatenate([np.arange(bags.offsets[index], bags.offsets[index + 1]) for index in patients])
    sizes = np.diff(bags.offsets)[patients]
    return replace(
        bags,
        crops=bags.crops[torch.from_numpy(images)],
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        patient_ids=[bags.patient_ids[index] for index in patients],
        image_names=[bags.image_names[index] for index in images],
        labels=bags.labels[patients],
        clinical=bags.clinical[patients],
    )


def inductive_classes(
    bags: Bags, folder: Path, recipe: ScanRecipe, seed: int, device: torch.device
) -> Callable[[Indices], Classes]:
    """A function from training patients to everybody's cell classes (N,), SCAN trained on the former's pictures alone.

    Each set of patients is trained once, in a folder named by it. Where SCAN collapses it is trained from the next
    seed, ATTEMPTS times in all.
    """

    def classes(training: Indices) -> Classes:
        patients = np.sort(training)
        named = json.dumps([bags.patient_ids[index] for index in patients])
        run = _trained(
            bags_of(bags, patients), folder / hashlib.sha256(named.encode()).hexdigest()[:16], recipe, seed, device
        )
        _, probabilities = look(load_scan(run / "scan" / "scan.safetensors"), bags, device)
        return cell_classes(probabilities[0].numpy(), np.array(load_fusion(run)))[0]

    return classes


def _trained(some: Bags, folder: Path, recipe: ScanRecipe, seed: int, device: torch.device) -> Path:
    """The run folder of the first attempt that did not collapse.

    Raises:
        Collapse: every attempt did.
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
        f"nested: SCAN collapsed on {len(some)} patients from {ATTEMPTS} seeds. Train longer, or transductively"
    )
