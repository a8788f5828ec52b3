"""Runs SCAN's five stages in a run folder; what an earlier call finished is not trained again.

Uses no label, and all pictures: figures of members built on it are transductive, and say so.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from infer.features import cell_classes
from train.checkpoint import load_dimensions, load_weights, save_network, write_text
from train.crops import Bags, in_batches
from train.fitting import TrainingError
from train.out_of_fold import write_table
from train.protocols import seeded
from train.recipes import ScanRecipe
from train.scan.backbone import Backbone, BackboneDimensions
from train.scan.clustering import train_clustering
from train.scan.fusion import fuse
from train.scan.neighbours import nearest, own_patient_share
from train.scan.network import ScanDimensions, ScanNetwork, embed_all
from train.scan.self_labelling import train_self_labelling
from train.scan.simclr import train_pretext

LOG = logging.getLogger("lympho")


def train_scan(bags: Bags, run: Path, recipe: ScanRecipe, seed: int, device: torch.device) -> None:
    """Train what is missing in RUN/scan: pretext, clustering, scan (the final network), fusion.json, classes.csv."""
    folder = run / "scan"
    folder.mkdir(parents=True, exist_ok=True)
    crops = bags.crops.to(device)
    if not (folder / "pretext.safetensors").exists():
        rng = seeded(seed, "scan pretext")
        trained = train_pretext(crops, recipe, rng, device, folder / "pretext.history.csv").cpu()
        save_network(folder / "pretext.safetensors", trained, trained.dimensions)
    backbone = Backbone(BackboneDimensions(**load_dimensions(folder / "pretext.safetensors")))
    load_weights(folder / "pretext.safetensors", backbone)

    if not (folder / "clustering.safetensors").exists():
        rng = seeded(seed, "scan clustering")
        patient = torch.from_numpy(bags.patient_of_image())
        embedding = embed_all(backbone.to(device), crops, device)
        _report_neighbours(embedding, bags, recipe, folder)
        neighbours = nearest(embedding, recipe.neighbours, patient if recipe.own_patient_excluded else None)
        network = train_clustering(
            backbone.cpu(), crops, neighbours, recipe, rng, device, folder / "clustering.history.csv"
        )
        save_network(folder / "clustering.safetensors", network, network.dimensions)

    if not (folder / "scan.safetensors").exists():
        rng = seeded(seed, "scan self-labelling")
        clustered = load_scan(folder / "clustering.safetensors")
        history = folder / "self_labelling.history.csv"
        student = train_self_labelling(clustered, crops, recipe, rng, device, history)
        kept = student.cpu() if _loses_no_class(clustered, student, bags, device) else clustered
        save_network(folder / "scan.safetensors", kept.cpu(), kept.dimensions)
    _classify(bags, load_scan(folder / "scan.safetensors").to(device), recipe, folder, device)


def load_scan(path: Path) -> ScanNetwork:
    """The network of a checkpoint, in evaluation mode."""
    network = ScanNetwork(ScanDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def load_fusion(run: Path) -> list[int]:
    """Class after fusion of each SCAN class: (20,)."""
    fusion: list[int] = json.loads((run / "scan" / "fusion.json").read_text())
    return fusion


def class_probabilities(
    network: ScanNetwork, bags: Bags, device: torch.device
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Of all pictures, before fusion: (N, 20)."""
    network.to(device).eval()
    with torch.inference_mode():
        parts = [network(images.to(device))[0].cpu() for images in in_batches(bags.crops)]
    return torch.cat(parts).numpy()


def _report_neighbours(embedding: torch.Tensor, bags: Bags, recipe: ScanRecipe, folder: Path) -> None:
    """How often a free neighbour comes from the cell's own patient: whether the embedding follows the stain."""
    own, chance = own_patient_share(nearest(embedding, recipe.neighbours), bags.patient_of_image())
    LOG.info("scan: %.3f of the nearest neighbours are of the cell's own patient, %.3f by chance", own, chance)
    facts = {"own_patient_share": own, "own_patient_share_by_chance": chance}
    write_text(folder / "neighbours.json", json.dumps(facts, indent=1))


def _loses_no_class(clustered: ScanNetwork, student: ScanNetwork, bags: Bags, device: torch.device) -> bool:
    """Self-labelling can drop classes or collapse to one: then the clustering stands."""
    before, after = (
        len(np.unique(class_probabilities(network, bags, device).argmax(1))) for network in (clustered, student)
    )
    if after < before:
        LOG.warning("scan: self-labelling left %d of %d classes, so the clustering stands", after, before)
    return after >= before


def _classify(bags: Bags, network: ScanNetwork, recipe: ScanRecipe, folder: Path, device: torch.device) -> None:
    probabilities = class_probabilities(network, bags, device)
    fusion = fuse(probabilities, recipe.fused)
    classes, _ = cell_classes(probabilities, fusion)
    sizes = np.bincount(classes, minlength=recipe.fused)
    if np.count_nonzero(sizes) < 2:
        raise TrainingError("scan: all pictures fell into one class, which tells nothing. Train longer, or on more")
    owner = [bags.patient_ids[index] for index in bags.patient_of_image()]
    columns = {"patient_id": owner, "image": bags.image_names, "cell_class": classes}
    write_table(folder / "classes.csv", pd.DataFrame(columns))
    write_text(folder / "fusion.json", json.dumps(fusion.tolist()))
    LOG.info("scan: class sizes after fusion: %s", " ".join(str(size) for size in sizes))
