"""Cell classes for a model of some patients, SCAN trained on their pictures alone."""

import hashlib
import json
import logging
from collections.abc import Callable
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


def inductive_classes(
    bags: Bags, folder: Path, recipe: ScanRecipe, seed: int, device: torch.device
) -> Callable[[Indices], Classes]:
    """A function from training patients to everybody's cell classes (N,), SCAN trained on the former's pictures alone.

    Each set of patients is trained once, in a folder named by it. Where SCAN collapses it is trained from the next
    seed, ATTEMPTS times in all.
    """

    def classes(training: Indices) -> Classes:
        some = bags.of(np.sort(training))
        key = hashlib.sha256(json.dumps(some.patient_ids).encode()).hexdigest()[:16]
        run = _trained(some, folder / key, recipe, seed, device)
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
