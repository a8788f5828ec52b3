"""Runs SCAN's five stages in a run folder; what an earlier call finished is not trained again.

Uses no labels, but all pictures: results of members built on it are transductive, and are reported as such. A stage
that collapses stops with a message; the result of the previous stage is kept.
"""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from infer.members.features import cell_classes
from train.core.arrays import Classes
from train.core.checkpoint import load_dimensions, load_weights, progress_path, save_network
from train.core.files import write_table, write_text
from train.core.fitting import Job
from train.data.bags import Bags
from train.members.backbones import BackboneDimensions
from train.members.recipes import ScanRecipe
from train.members.scan.backbone import Backbone
from train.members.scan.clustering import head_losses, train_clustering
from train.members.scan.fusion import fuse
from train.members.scan.measures import Collapse, check_classes, class_sizes, measure_stage, stability
from train.members.scan.neighbours import nearest, own_patient_share
from train.members.scan.network import ScanDimensions, ScanNetwork, embed_all
from train.members.scan.self_labelling import train_self_labelling
from train.members.scan.simclr import train_pretext

LOG = logging.getLogger("lympho")

STABILITY_OF = ("clustering", "whole")


def train_scan(
    bags: Bags,
    run: Path,
    recipe: ScanRecipe,
    seed: int,
    device: torch.device,
    *,
    reference: Classes | None = None,
    stability_seeds: int = 1,
    stability_of: str = "clustering",
) -> None:
    """Train what is missing in RUN/scan and write the results.

    pretext, clustering and scan (the final network) are networks; fusion.json and classes.csv are used by naive Bayes;
    stages.csv, neighbours.json and stability.json describe the quality of the classes.

    Args:
        bags: all patients.
        run: the run folder.
        recipe: hyperparameters.
        seed: random seed.
        device: device to train on.
        reference: (N,) reference classes from another source, for the stage table.
        stability_seeds: number of trainings, each with its own seed, for measuring stability.
        stability_of: `clustering` repeats the clustering on the same pretext; `whole` repeats everything, including
            the pretext, in RUN/scan/seed-N.
    """
    folder = run / "scan"
    folder.mkdir(parents=True, exist_ok=True)
    bags = bags.on(device)
    backbone = _pretext(bags, folder, recipe, seed, device)
    neighbours = _neighbours(backbone, bags, recipe, folder, device)
    clustered = _clustering(backbone, neighbours, bags, folder, recipe, seed, device)
    final = _self_labelling(clustered, bags, folder, recipe, seed, device) or clustered
    if not (folder / "scan.safetensors").exists():
        save_network(folder / "scan.safetensors", final.cpu(), final.dimensions)
    _classify(bags, load_scan(folder / "scan.safetensors"), recipe, folder, device)  # the network that is exported
    _measure(bags, folder, recipe, device, reference)
    seeds = range(seed, seed + stability_seeds)
    if stability_seeds > 1 and stability_of == "whole":
        _measure_whole_stability(bags, folder, recipe, seeds, device, reference)
    elif stability_seeds > 1:
        _measure_stability(backbone, neighbours, bags, folder, recipe, seeds, device)


def load_scan(path: Path) -> ScanNetwork:
    """Load the network from a checkpoint, in evaluation mode."""
    network = ScanNetwork(ScanDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def load_backbone(path: Path) -> Backbone:
    """Load the pretext's backbone, in evaluation mode."""
    backbone = Backbone(BackboneDimensions(**load_dimensions(path)))
    load_weights(path, backbone)
    return backbone


def load_fusion(run: Path) -> list[int]:
    """The class after fusion of each SCAN class: (20,)."""
    fusion: list[int] = json.loads((run / "scan" / "fusion.json").read_text())
    return fusion


def look(network: ScanNetwork, pictures: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Embedding (N, D) and probabilities of every head (heads, N, 20) of pictures (N, 112, 112, 3), on the CPU."""
    embedding = embed_all(network.to(device).backbone, pictures, device)
    network.eval()
    with torch.inference_mode():
        return embedding, network.head_logits(embedding.to(device)).softmax(-1).cpu()


def _pretext(bags: Bags, folder: Path, recipe: ScanRecipe, seed: int, device: torch.device) -> Backbone:
    path = folder / "pretext.safetensors"
    if not path.exists():
        job = Job("scan pretext", path, seed)
        trained = train_pretext(bags.crops, recipe.backbone, recipe, job, device)
        save_network(path, trained.cpu(), trained.dimensions)
    return load_backbone(path)


def _neighbours(backbone: Backbone, bags: Bags, recipe: ScanRecipe, folder: Path, device: torch.device) -> Tensor:
    """Neighbours of each picture (N, k). Writes how often unrestricted neighbours come from the same patient.

    A high share means that the embedding follows the stain.
    """
    embedding = embed_all(backbone.to(device), bags.crops, device)
    patient = bags.patient_of_image()
    own, chance = own_patient_share(nearest(embedding, recipe.neighbours), patient)
    LOG.info("scan: share of nearest neighbours from the cell's own patient %.3f, by chance %.3f", own, chance)
    facts = {"own_patient_share": own, "own_patient_share_by_chance": chance}
    write_text(folder / "neighbours.json", json.dumps(facts, indent=1))
    return nearest(embedding, recipe.neighbours, torch.from_numpy(patient) if recipe.own_patient_excluded else None)


def _clustering(
    backbone: Backbone,
    neighbours: Tensor,
    bags: Bags,
    folder: Path,
    recipe: ScanRecipe,
    seed: int,
    device: torch.device,
    stem: str = "clustering",
) -> ScanNetwork:
    path = folder / f"{stem}.safetensors"
    if path.exists():
        return load_scan(path)

    def observe(network: ScanNetwork, epoch: int) -> dict[str, float]:
        """Classes and largest share of the most balanced heads. A collapse counts only after half of the epochs."""
        sizes = class_sizes(look(network, bags.crops, device)[1])  # (heads, C)
        smallest = float((sizes.max(axis=1) / len(bags.crops)).min())
        if epoch >= recipe.clustering.epochs // 2 and smallest > recipe.largest_class:
            raise Collapse(
                f"scan clustering: in every head one class contains at least {smallest:.0%} of the pictures. {_ADVICE}"
            )
        return {"classes": float((sizes > 0).sum(axis=1).max()), "largest_share": smallest}

    job = Job("scan clustering", path, seed)
    network = train_clustering(backbone.cpu(), bags.crops, neighbours, recipe, job, device, observe)
    trained = network.with_head(_best_sound_head(network, neighbours, bags, recipe, device))
    save_network(path, trained.cpu(), trained.dimensions)
    return trained


def _best_sound_head(
    network: ScanNetwork, neighbours: Tensor, bags: Bags, recipe: ScanRecipe, device: torch.device
) -> int:
    """The head with the lowest loss among those that have not collapsed.

    Raises:
        Collapse: all heads have collapsed.
    """
    losses = head_losses(network.to(device), bags.crops, neighbours, recipe.entropy_weight, device)
    reasons = []
    sizes = class_sizes(look(network, bags.crops, device)[1])  # (heads, C)
    for head in losses.argsort().tolist():
        try:
            enough = np.count_nonzero(sizes[head]) >= recipe.least_classes
            wanted = sizes[head] > 0 if enough else np.ones(recipe.clusters, dtype=bool)
            check_classes(sizes[head], wanted, recipe.largest_class)
            return int(head)
        except Collapse as error:
            reasons.append(f"head {head}: {error}")
    raise Collapse(f"scan clustering: {'; '.join(reasons)}. {_ADVICE}")


def _self_labelling(
    clustered: ScanNetwork, bags: Bags, folder: Path, recipe: ScanRecipe, seed: int, device: torch.device
) -> ScanNetwork | None:
    """The fine-tuned network; None if it lost a class, so that the clustering result is used."""
    path, verdict = folder / "self_labelling.safetensors", folder / "self_labelling.json"
    if verdict.exists():
        return load_scan(path) if json.loads(verdict.read_text())["kept"] else None
    if path.exists():  # an earlier call was interrupted before writing the verdict; only sound networks are saved
        write_text(verdict, json.dumps({"kept": True, "reason": ""}, indent=1))
        return load_scan(path)
    before = class_sizes(look(clustered, bags.crops, device)[1])[0]  # (C,)

    def observe(network: ScanNetwork, epoch: int) -> dict[str, float]:
        sizes = class_sizes(look(network, bags.crops, device)[1])[0]
        check_classes(sizes, before > 0, recipe.largest_class)
        return {"classes": float((sizes > 0).sum()), "largest_share": float(sizes.max() / sizes.sum())}

    kept, reason = True, ""
    job = Job("scan self-labelling", path, seed)
    try:
        student = train_self_labelling(clustered.cpu(), bags.crops, recipe, job, device, observe)
        observe(student, recipe.self_labelling.epochs)  # checks the averaged weights
        save_network(path, student.cpu(), student.dimensions)
    except Collapse as error:
        LOG.warning("scan self-labelling: %s. The clustering result is used", error)
        progress_path(path).unlink(missing_ok=True)
        kept, reason = False, str(error)
    write_text(verdict, json.dumps({"kept": kept, "reason": reason}, indent=1))
    return student if kept else None


def _classify(bags: Bags, network: ScanNetwork, recipe: ScanRecipe, folder: Path, device: torch.device) -> None:
    probabilities = look(network, bags.crops, device)[1][0].numpy()  # (N, 20)
    fusion = fuse(probabilities, recipe.fused)
    classes, _ = cell_classes(probabilities, fusion)
    sizes = np.bincount(classes, minlength=recipe.fused)
    if np.count_nonzero(sizes) < 2:
        raise Collapse("scan: all pictures are in the same class. Train longer or on more pictures")
    owner = [bags.patient_ids[index] for index in bags.patient_of_image()]
    columns = {"patient_id": owner, "image": bags.image_names, "cell_class": classes}
    write_table(folder / "classes.csv", pd.DataFrame(columns))
    write_text(folder / "fusion.json", json.dumps(fusion.tolist()))
    LOG.info("scan: class sizes after fusion: %s", " ".join(str(size) for size in sizes))


def _measure(bags: Bags, folder: Path, recipe: ScanRecipe, device: torch.device, reference: Classes | None) -> None:
    """Write the stage table, stages.csv. An existing one is replaced only if there are reference classes to add."""
    if reference is None and (folder / "stages.csv").exists():
        return
    rows = []
    patient = bags.patient_of_image()

    def add(stage: str, embedding: Tensor, classes: Classes | int) -> None:
        measures = measure_stage(stage, embedding, classes, patient, recipe.neighbours, reference)
        rows.append(asdict(measures))

    backbone = load_backbone(folder / "pretext.safetensors").to(device)
    add("pretext (classes: k-means)", embed_all(backbone, bags.crops, device), recipe.clusters)
    for stage in ("clustering", "self_labelling"):
        path = folder / f"{stage}.safetensors"
        if path.exists():
            embedding, probabilities = look(load_scan(path), bags.crops, device)
            add(stage, embedding, probabilities[0].argmax(1).numpy())
    add(
        "fused, the final classes",
        embed_all(load_scan(folder / "scan.safetensors").to(device).backbone, bags.crops, device),
        _final_classes(folder),
    )
    write_table(folder / "stages.csv", pd.DataFrame(rows))


def _measure_stability(
    backbone: Backbone,
    neighbours: Tensor,
    bags: Bags,
    folder: Path,
    recipe: ScanRecipe,
    seeds: range,
    device: torch.device,
) -> None:
    """Repeat the clustering with other seeds on the same pretext, and write how well classes agree: stability.json."""
    found, collapsed = [], []
    for seed in seeds:
        stem = "clustering" if seed == seeds[0] else f"clustering-seed-{seed}"
        try:
            network = _clustering(backbone, neighbours, bags, folder, recipe, seed, device, stem)
        except Collapse as error:
            LOG.warning("scan stability, seed %d: %s", seed, error)
            collapsed.append(seed)
            continue
        probabilities = look(network, bags.crops, device)[1][0].numpy()
        found.append(cell_classes(probabilities, fuse(probabilities, recipe.fused))[0])
    _write_stability(folder / "stability.json", "fused classes of clusterings on one pretext", seeds, collapsed, found)


def _measure_whole_stability(
    bags: Bags, folder: Path, recipe: ScanRecipe, seeds: range, device: torch.device, reference: Classes | None
) -> None:
    """Repeat all of SCAN with other seeds, and write how well the final classes agree: whole_stability.json."""
    found, collapsed = [_final_classes(folder)], []
    for seed in seeds[1:]:  # the first seed is that of the run itself, which is finished
        try:
            train_scan(bags, folder / f"seed-{seed}", recipe, seed, device, reference=reference)
            found.append(_final_classes(folder / f"seed-{seed}" / "scan"))
        except Collapse as error:
            LOG.warning("scan stability, seed %d: %s", seed, error)
            collapsed.append(seed)
    _write_stability(folder / "whole_stability.json", "final classes of whole trainings", seeds, collapsed, found)


def _final_classes(folder: Path) -> Classes:
    """The fused class of each picture: (N,)."""
    return pd.read_csv(folder / "classes.csv")["cell_class"].to_numpy(np.int64)


def _write_stability(path: Path, of: str, seeds: range, collapsed: list[int], found: list[Classes]) -> None:
    facts = {
        "of": of,
        "seeds": list(seeds),
        "collapsed": collapsed,
        "agreement": stability(found) if len(found) > 1 else None,
    }
    write_text(path, json.dumps(facts, indent=1))


_ADVICE = (
    "The pretext is kept. Train longer, with another --seed, or on more pictures, in a new run folder; "
    "scan/pretext.safetensors may be copied there"
)
