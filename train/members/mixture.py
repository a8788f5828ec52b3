"""Trains the mixture of experts: one network a fold for out-of-fold predictions, one on all patients for the bundle.

A recipe may ask for several mixtures, each from a seed of its own, whose probabilities are averaged: what one network
happens to make of 130 patients hangs on its seed.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from train.core.batch_norm import recalibrate
from train.core.checkpoint import load_dimensions, load_weights, save_network
from train.core.curves import MALIGNANT_WEIGHT, Curves, Floats, Indices
from train.core.files import write_table
from train.core.fitting import Job, fit, mixed_precision
from train.core.seeds import seeded
from train.data.augment import turn_and_flip, turned_bags
from train.data.crops import Bags, in_batches
from train.members.candidate import PROBABILITY, Candidate, MeanOf
from train.members.mixture_network import Committee, MixtureOfExperts, MoeDimensions, MoeOutput, bag_means
from train.members.out_of_fold import Trainee, batches_of, cross_predict
from train.members.recipes import MoeRecipe
from train.members.training import MemberJob, MemberTraining, NestedJob

FOLDER, OF_SEED = "moe", "seed-"
OUTPUTS = ("probability", "image", "clinical", "gate")
NORM_BATCH = 256  # pictures
TURNED = "turned"


@dataclass(frozen=True)
class MoeBatch:
    """Some patients of an epoch; shapes as MixtureOfExperts.forward takes them."""

    images: Tensor
    patient: Tensor
    clinical: Tensor
    labels: Tensor  # (P,)
    patients: Indices  # (P,) their indices in the cohort


def train_moe(
    bags: Bags, folds: Indices, run: Path, recipe: MoeRecipe, seeds: Sequence[int], device: torch.device
) -> pd.DataFrame:
    """Train what is missing in RUN/moe, mixtures after the first in folders by seed; return out-of-fold predictions.

    A row a patient, also in RUN/moe/out_of_fold.csv: the mean of all mixtures' probabilities; what else stands there is
    the first one's.
    """
    tables = []
    for seed in seeds:

        def train(patients: Indices, path: Path, seed: int = seed) -> None:
            network = train_network(bags, patients, recipe, Job(f"moe {path.stem}", path, seed), device)
            if recipe.late_steps:
                fit_clinical_side(network, bags, patients, recipe, device)
            save_network(path, network.cpu(), network.dimensions)

        trainee = Trainee(train, lambda path, of: predict(path, bags, of, device))
        tables.append(cross_predict(bags, folds, _of_seed(run, seed, seeds[0]), trainee, "of_one_seed.csv"))
    table = tables[0].assign(probability=np.mean([one["probability"].to_numpy() for one in tables], axis=0))
    write_table(run / FOLDER / "out_of_fold.csv", table)
    return table


def network_paths(run: Path) -> list[Path]:
    """Checkpoints of all mixtures that the run folder's options ask for, whether they are there or not."""
    options = json.loads((run / "options.json").read_text())
    first, number = options["seed"], options["recipe"]["moe_seeds"]
    return [_of_seed(run, seed, first) / "full.safetensors" for seed in range(first, first + number)]


def _of_seed(run: Path, seed: int, first: int) -> Path:
    return run / FOLDER if seed == first else run / FOLDER / f"{OF_SEED}{seed}"


def load_committee(run: Path) -> Committee:
    """The run folder's mixtures as one network, in evaluation mode."""
    return Committee([load_moe(path) for path in network_paths(run)]).eval()


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
    malignant = malignant_weight(recipe, bags.labels[patients])
    sample = norm_sample(bags, patients, recipe.norm_images, job)
    clinical_side = [*network.head.clinical_expert.parameters(), *network.head.gate.parameters()]
    fast = {id(parameter) for parameter in clinical_side}

    def loss(net: MixtureOfExperts, batch: MoeBatch) -> Tensor:
        output = _forward(net, batch, device)
        if curves:
            curves.record(batch.patients, output.probability)
        mixture = moe_loss(output, batch.labels, recipe.expert_loss, malignant)
        return mixture + gate_loss(output.gate, recipe.gate_pull)

    def with_statistics(net: MixtureOfExperts) -> MixtureOfExperts:
        if len(sample):
            recalibrate(net.encoder, in_batches(bags.crops[sample].to(device), NORM_BATCH))
        return net

    trained = fit(
        network,
        lambda rng: bag_batches(
            bags, patients, recipe.batch_patients, recipe.images_per_patient, rng, device, turns=recipe.turns
        ),
        loss,
        recipe.fit,
        job,
        parameters=[
            {"params": [parameter for parameter in network.parameters() if id(parameter) not in fast]},
            {"params": clinical_side, "lr": recipe.fit.learning_rate * recipe.clinical_rate},
        ],
        observe=(lambda net, epoch: curves.observe(with_statistics(net), epoch)) if curves else None,
    )
    return with_statistics(trained)


def norm_sample(bags: Bags, patients: Indices, number: int, job: Job) -> Tensor:
    """Pictures that batch norm's statistics are taken from, mixed, of each patient about as many as of another: (N,).

    N is the number asked for, cut to whole batches of NORM_BATCH where there are that many.
    """
    if not number:
        return torch.empty(0, dtype=torch.int64)
    rng = seeded(job.seed, f"{job.name}, batch norm")
    chosen = rng.permutation(np.concatenate(bags.sample(patients, -(-number // len(patients)), rng)))[:number]
    return torch.from_numpy(chosen[: len(chosen) // NORM_BATCH * NORM_BATCH or len(chosen)])


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


def moe_loss(output: MoeOutput, labels: Tensor, expert_loss: float, malignant: float = MALIGNANT_WEIGHT) -> Tensor:
    """Cross-entropy of the mixture, plus `expert_loss` times that of each expert alone.

    Args:
        malignant: what a malignant patient weighs, a reactive one weighing 1.
    """
    total = weighted_cross_entropy(output.probability, labels, malignant)
    if expert_loss:
        image = weighted_cross_entropy(output.image, labels, malignant)
        total = total + expert_loss * (image + weighted_cross_entropy(output.clinical, labels, malignant))
    return total


def malignant_weight(recipe: MoeRecipe, labels: Indices) -> float:
    """What a malignant patient weighs in the loss against a reactive one: the recipe's, or what evens out the classes.

    Args:
        labels: (P,) of the training patients.
    """
    if recipe.malignant_weight is not None:
        return recipe.malignant_weight
    return float((labels == 0).sum() / (labels == 1).sum())


def gate_loss(gate: Tensor, pull: float) -> Tensor:
    """What draws the gate to one half: `pull` times its mean squared distance; (P,) -> scalar."""
    return pull * ((gate - 0.5) ** 2).mean()


def weighted_cross_entropy(probability: Tensor, labels: Tensor, malignant: float = MALIGNANT_WEIGHT) -> Tensor:
    """torch's weighted cross-entropy from P(malignant) instead of logits, which a mixture does not have: scalar."""
    weights = torch.where(labels == 1, malignant, 1.0)
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
    means = mean_maps(network, bags, patients, device)
    clinical = torch.from_numpy(bags.clinical[patients]).to(device)
    labels = torch.from_numpy(bags.labels[patients]).to(device)
    malignant = malignant_weight(recipe, bags.labels[patients])

    def clinical_loss() -> Tensor:
        return weighted_cross_entropy(head(means, clinical).clinical, labels, malignant)

    def mixture_loss() -> Tensor:
        output: MoeOutput = head(means, clinical)
        mixture = weighted_cross_entropy(output.probability, labels, malignant)
        return mixture + gate_loss(output.gate, recipe.gate_pull)

    for part, loss in ((head.clinical_expert, clinical_loss), (head.gate, mixture_loss)):
        optimizer = torch.optim.Adam(part.parameters(), lr=0.05, weight_decay=recipe.fit.weight_decay)
        for _ in range(recipe.late_steps):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def predict(path: Path, bags: Bags, patients: Indices, device: torch.device) -> dict[str, Floats]:
    """Score patients on all their pictures: OUTPUTS, each (len(patients),), and the image expert as pictures_only."""
    result = score(load_moe(path).to(device), bags, patients, device)
    return {**result, "pictures_only": result["image"]}


def score(network: MixtureOfExperts, bags: Bags, patients: Indices, device: torch.device) -> dict[str, Floats]:
    """OUTPUTS of some patients on all their pictures, each (len(patients),); the network is in evaluation mode."""
    return judge(network, mean_maps(network, bags, patients, device), bags.clinical[patients])


def judge(network: MixtureOfExperts, means: Tensor, clinical: npt.NDArray[np.float32]) -> dict[str, Floats]:
    """OUTPUTS from what mean_maps gives, each (P,).

    Args:
        means: (P, 256, 3, 3).
        clinical: (P, 3), raw.
    """
    with torch.inference_mode():
        output = network.head(means, torch.from_numpy(clinical).to(means.device))
    return {name: getattr(output, name).double().cpu().numpy() for name in OUTPUTS}


def mean_maps(network: MixtureOfExperts, bags: Bags, patients: Indices, device: torch.device) -> Tensor:
    """Mean of the encoder's maps over all pictures of each patient: (P, 256, 3, 3)."""
    means = []
    with torch.no_grad():
        for patient in patients:
            crops = bags.crops[int(bags.offsets[patient]) : int(bags.offsets[patient + 1])]
            maps = torch.cat([network.encoder(part.to(device)) for part in in_batches(crops)])
            means.append(maps.mean(dim=0))
    return torch.stack(means)


def bag_batches(
    bags: Bags,
    patients: Indices,
    batch_patients: int,
    images_per_patient: int,
    rng: np.random.Generator,
    device: torch.device,
    *,
    turns: bool,
) -> Iterator[MoeBatch]:
    """An epoch: all patients once in random order, some pictures of each.

    Args:
        images_per_patient: at most; 0 is all.
        turns: whether each picture comes in one of its eight orientations.
    """
    for group in batches_of(rng.permutation(patients), batch_patients):
        chosen = bags.sample(group, images_per_patient, rng)
        images = bags.crops[torch.from_numpy(np.concatenate(chosen))].to(device)
        patient = np.repeat(np.arange(len(group)), [len(part) for part in chosen])
        yield MoeBatch(
            turn_and_flip(images) if turns else images,
            torch.from_numpy(patient).to(device),
            torch.from_numpy(bags.clinical[group]).to(device),
            torch.from_numpy(bags.labels[group]).to(device),
            group,
        )


def _forward(network: MixtureOfExperts, batch: MoeBatch, device: torch.device) -> MoeOutput:
    with mixed_precision(device):
        maps = network.encoder(batch.images)
    return network.head(bag_means(maps.float(), batch.patient, len(batch.labels)), batch.clinical)  # type: ignore[no-any-return]


def candidate(job: NestedJob) -> MeanOf:
    """The member for the nested protocol: some mixtures' mean."""
    seeds = range(job.seed, job.seed + job.recipe.moe_seeds)
    return MeanOf("moe", tuple(one_mixture(job.bags, job.recipe.moe, seed, job.device) for seed in seeds))


def one_mixture(bags: Bags, recipe: MoeRecipe, seed: int, device: torch.device) -> Candidate:
    """One mixture of experts, its clinical side fitted late where the recipe says so.

    Its column TURNED is of the same network, every picture seen in all eight orientations.
    """

    def predicted(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        if not checkpoint.exists():
            network = train_network(bags, training, recipe, Job(f"nested {checkpoint.stem}", checkpoint, seed), device)
            if recipe.late_steps:
                fit_clinical_side(network, bags, training, recipe, device)
            save_network(checkpoint, network.cpu(), network.dimensions)
        ways = {PROBABILITY: bags, TURNED: turned_bags(bags, asked)}
        return {name: predict(checkpoint, of, asked, device)["probability"] for name, of in ways.items()}

    facts = {"recipe": asdict(recipe), "seed": seed, "columns": [PROBABILITY, TURNED]}
    return Candidate("moe", facts, predicted, repeated=False)


def _train(job: MemberJob) -> None:
    seeds = range(job.seed, job.seed + job.recipe.moe_seeds)
    train_moe(job.bags, job.folds, job.run, job.recipe.moe, seeds, job.device)


TRAINING = MemberTraining("moe", FOLDER, "moe", _train, network_paths, candidate, {"gate": "moe gate"})
