"""Leads that are fine-tuned networks: hours on two cores, minutes on a GPU, so they run only with --deep-leads."""

from dataclasses import asdict
from pathlib import Path

import torch

from train.core.arrays import Floats, Indices
from train.core.checkpoint import save_network
from train.core.fitting import Job
from train.data.bags import Bags
from train.data.whose_pictures import COLUMNS
from train.evaluation.nested import finetuned
from train.evaluation.nested.stacking import Stack
from train.members import registry
from train.members.candidate import Candidate
from train.members.recipes import FINE_TUNED, FineTunedRecipe

DEEP_GATES = {"gate: fine-tuned or clinical": ("fine-tuned", "clinical logistic")}


def deep_ensembles() -> dict[str, Stack]:
    """Ensembles that include fine-tuned networks."""
    return {
        "moe + fine-tuned": Stack(("moe", "fine-tuned")),
        "ensemble + fine-tuned": Stack((*registry.names(), "fine-tuned")),
    }


def deep_leads(bags: Bags, seed: int, device: torch.device) -> list[Candidate]:
    """All fine-tuning variants."""
    return [finetuned_member(bags, title, way, seed, device) for title, way in FINE_TUNED.items()]


def finetuned_member(bags: Bags, title: str, recipe: FineTunedRecipe, seed: int, device: torch.device) -> Candidate:
    """EfficientNet-Lite0, fine-tuned on what the clinical values do not explain."""

    def predict(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        job = Job(f"nested {checkpoint.stem}", checkpoint, seed)
        if not checkpoint.exists():
            network = finetuned.train_network(bags, training, recipe, job, device)
            save_network(checkpoint, network.cpu(), network.dimensions)
        found = finetuned.predict(checkpoint, bags, asked, device)
        return {column: found[column] for column in COLUMNS}

    facts = {"recipe": asdict(recipe), "seed": seed, "columns": COLUMNS}
    return Candidate("finetuned", facts, predict, repeated=False, title=title)
