"""Trains the mixture of experts: one network a fold for out-of-fold predictions, one on all patients for the bundle."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from train.augment import turn_and_flip
from train.checkpoint import load_dimensions, load_weights, save_network
from train.crops import Bags, in_batches
from train.curves import Curves, Floats, Indices
from train.fitting import Job, fit, mixed_precision
from train.moe_network import MixtureOfExperts, MoeDimensions, MoeOutput, bag_means
from train.out_of_fold import Trainee, batches_of, class_weights, cross_predict
from train.protocols import seeded
from train.recipes import MoeRecipe

OUTPUTS = ("probability", "image", "clinical", "gate")


@dataclass(frozen=True)
class MoeBatch:
    """Some patients of an epoch; shapes as MixtureOfExperts.forward takes them."""

    images: Tensor
    patient: Tensor
    clinical: Tensor
    labels: Tensor  # (P,)
    patients: Indices  # (P,) their indices in the cohort


def train_moe(
    bags: Bags, folds: Indices, run: Path, recipe: MoeRecipe, seed: int, device: torch.device
) -> pd.DataFrame:
    """Train what is missing in RUN/moe and return the out-of-fold predictions, a row a patient."""

    def train(patients: Indices, path: Path) -> None:
        network = train_network(bags, patients, recipe, Job(f"moe {path.stem}", path, seed), device)
        if recipe.late_steps:
            fit_clinical_side(network, bags, patients, recipe, device)
        save_network(path, network.cpu(), network.dimensions)

    return cross_predict(bags, folds, run / "moe", Trainee(train, lambda path, of: predict(path, bags, of, device)))


def train_network(
    bags: Bags,
    patients: Indices,
    recipe: MoeRecipe,
    job: Job,
    device: torch.device,
    curves: Curves[MixtureOfExperts] | None = None,
    network: MixtureOfExperts | None = None,
) -> MixtureOfExperts:
    """Train on some patients, the late fit not included; `curves` watches each epoch.

    A network handed in is trained in place, so that the caller has its last weights beside the averaged ones returned.
    """
    network = network or new_network(bags, patients, recipe, job, device)
    clinical_side = [*network.head.clinical_expert.parameters(), *network.head.gate.parameters()]
    fast = {id(parameter) for parameter in clinical_side}

    def loss(net: MixtureOfExperts, batch: MoeBatch) -> Tensor:
        output = _forward(net, batch, device)
        if curves:
            curves.record(batch.patients, output.probability)
        return moe_loss(output, batch.labels, recipe.expert_loss)

    return fit(
        network,
        lambda rng: _epoch(bags, patients, recipe, rng, device),
        loss,
        recipe.fit,
        job,
        parameters=[
            {"params": [parameter for parameter in network.parameters() if id(parameter) not in fast]},
            {"params": clinical_side, "lr": recipe.fit.learning_rate * recipe.clinical_rate},
        ],
        observe=curves.observe if curves else None,
    )


def new_network(bags: Bags, patients: Indices, recipe: MoeRecipe, job: Job, device: torch.device) -> MixtureOfExperts:
    """An untrained network, its clinical values scaled by the patients it will be trained on."""
    seeded(job.seed, job.name)
    network = MixtureOfExperts(MoeDimensions(log_count=recipe.log_count)).to(device)
    network.head.scale.fit(torch.from_numpy(bags.clinical[patients]).to(device))
    return network


def load_moe(path: Path) -> MixtureOfExperts:
    """The network of a checkpoint, in evaluation mode."""
    network = MixtureOfExperts(MoeDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def moe_loss(output: MoeOutput, labels: Tensor, expert_loss: float) -> Tensor:
    """Cross-entropy of the mixture, malignant weighing 2, plus `expert_loss` times that of each expert alone."""
    total = weighted_cross_entropy(output.probability, labels)
    if expert_loss:
        experts = weighted_cross_entropy(output.image, labels) + weighted_cross_entropy(output.clinical, labels)
        total = total + expert_loss * experts
    return total


def weighted_cross_entropy(probability: Tensor, labels: Tensor) -> Tensor:
    """torch's weighted cross-entropy from P(malignant) instead of logits, which a mixture does not have: scalar."""
    weights = class_weights(labels.device)[labels]
    # A float32 softmax can reach 0 exactly; the logarithm must stay finite.
    likelihood = torch.where(labels == 1, probability, 1 - probability).clamp_min(1e-7)
    return -(weights * likelihood.log()).sum() / weights.sum()


def fit_clinical_side(
    network: MixtureOfExperts, bags: Bags, patients: Indices, recipe: MoeRecipe, device: torch.device
) -> None:
    """Fit the clinical expert, then the gate, once more on the finished encoder and image expert, in place.

    Trained together, the image expert soon explains the training patients better than sex, count and age can, and the
    gate turns to it for everybody: it learns who has been memorised, not who can be judged by pictures. So the
    clinical expert first converges on a loss of its own, and the gate is drawn to one half.
    """
    network.eval()
    head = network.head
    with torch.no_grad():
        means = torch.cat([mean_maps(network, bags, patient, device) for patient in patients])  # (P, 256, 3, 3)
    clinical = torch.from_numpy(bags.clinical[patients]).to(device)
    labels = torch.from_numpy(bags.labels[patients]).to(device)

    def clinical_loss() -> Tensor:
        return weighted_cross_entropy(head(means, clinical).clinical, labels)

    def gate_loss() -> Tensor:
        output: MoeOutput = head(means, clinical)
        pull = recipe.gate_pull * ((output.gate - 0.5) ** 2).mean()
        return weighted_cross_entropy(output.probability, labels) + pull

    for part, loss in ((head.clinical_expert, clinical_loss), (head.gate, gate_loss)):
        optimizer = torch.optim.Adam(part.parameters(), lr=0.05, weight_decay=recipe.fit.weight_decay)
        for _ in range(recipe.late_steps):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def mean_maps(network: MixtureOfExperts, bags: Bags, patient: int, device: torch.device) -> Tensor:
    """Mean of the encoder's maps over all pictures of a patient: (1, 256, 3, 3)."""
    start, stop = int(bags.offsets[patient]), int(bags.offsets[patient + 1])
    maps: Tensor = torch.cat([network.encoder(part.to(device)) for part in in_batches(bags.crops[start:stop])])
    return maps.mean(dim=0, keepdim=True)


def predict(path: Path, bags: Bags, patients: Indices, device: torch.device) -> dict[str, Floats]:
    """Score patients on all their pictures: OUTPUTS, each (len(patients),), and the image expert as pictures_only."""
    result = score(load_moe(path).to(device), bags, patients, device)
    return {**result, "pictures_only": result["image"]}


def score(network: MixtureOfExperts, bags: Bags, patients: Indices, device: torch.device) -> dict[str, Floats]:
    """OUTPUTS of some patients on all their pictures, each (len(patients),); the network is in evaluation mode."""
    rows = []
    with torch.inference_mode():
        for patient in patients:
            mean = mean_maps(network, bags, patient, device)
            output = network.head(mean, torch.from_numpy(bags.clinical[patient : patient + 1]).to(device))
            rows.append([getattr(output, name).item() for name in OUTPUTS])
    table = np.array(rows)
    return {name: table[:, column] for column, name in enumerate(OUTPUTS)}


def _epoch(
    bags: Bags, patients: Indices, recipe: MoeRecipe, rng: np.random.Generator, device: torch.device
) -> Iterator[MoeBatch]:
    for group in batches_of(rng.permutation(patients), recipe.batch_patients):
        chosen = bags.sample(group, recipe.images_per_patient, rng)
        images = bags.crops[torch.from_numpy(np.concatenate(chosen))].to(device)
        patient = np.repeat(np.arange(len(group)), [len(part) for part in chosen])
        yield MoeBatch(
            turn_and_flip(images) if recipe.turns else images,
            torch.from_numpy(patient).to(device),
            torch.from_numpy(bags.clinical[group]).to(device),
            torch.from_numpy(bags.labels[group]).to(device),
            group,
        )


def _forward(network: MixtureOfExperts, batch: MoeBatch, device: torch.device) -> MoeOutput:
    with mixed_precision(device):
        maps = network.encoder(batch.images)
    return network.head(bag_means(maps.float(), batch.patient, len(batch.labels)), batch.clinical)  # type: ignore[no-any-return]
