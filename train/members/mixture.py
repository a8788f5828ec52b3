"""The mixture of experts with an encoder of its own, as in the report; the one on the backbone is in experts.py.

It is trained for the report's protocol and for comparison, and does not ship.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.core.arrays import Floats, Indices
from train.core.batch_norm import recalibrate
from train.core.checkpoint import load_dimensions, load_weights, save_network
from train.core.curves import MALIGNANT_WEIGHT, Curves
from train.core.fitting import Job, fit, mixed_precision
from train.core.seeds import seeded
from train.data.augment import turn_and_flip, turned_bags
from train.data.bags import Bags, in_batches
from train.data.whose_pictures import COLUMNS, NOBODY, by_pictures
from train.members.candidate import Candidate
from train.members.gated import GatedOutput
from train.members.mixture_network import MixtureOfExperts, MoeDimensions, bag_means
from train.members.out_of_fold import batches_of
from train.members.recipes import MoeRecipe

OUTPUTS = ("probability", "image", "clinical", "gate")
NORM_BATCH = 256  # pictures per batch when batch norm statistics are recomputed
TURNED = "turned"


@dataclass(frozen=True)
class MoeBatch:
    """A batch of patients; shapes as in MixtureOfExperts.forward."""

    images: Tensor
    patient: Tensor
    clinical: Tensor
    labels: Tensor  # (P,)
    patients: Indices  # (P,) their indices in the cohort


def train_network(
    bags: Bags,
    patients: Indices,
    recipe: MoeRecipe,
    job: Job,
    device: torch.device,
    curves: Curves[MixtureOfExperts] | None = None,
    network: MixtureOfExperts | None = None,
) -> MixtureOfExperts:
    """Train on the given patients, without the late fit; `curves` records metrics after each epoch.

    A network passed in is trained in place: the caller then has its last weights as well as the averaged ones returned.
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
    """Indices of the pictures from which batch norm statistics are computed, shuffled, balanced over patients: (N,).

    N is the requested number, rounded down to full batches of NORM_BATCH if there are enough pictures for one.
    """
    if not number:
        return torch.empty(0, dtype=torch.int64)
    rng = seeded(job.seed, f"{job.name}, batch norm")
    chosen = rng.permutation(np.concatenate(bags.sample(patients, -(-number // len(patients)), rng)))[:number]
    return torch.from_numpy(chosen[: len(chosen) // NORM_BATCH * NORM_BATCH or len(chosen)])


def new_network(bags: Bags, patients: Indices, recipe: MoeRecipe, job: Job, device: torch.device) -> MixtureOfExperts:
    """An untrained network, with its clinical scaling fitted on the patients it will be trained on."""
    seeded(job.seed, job.name)
    network = MixtureOfExperts(MoeDimensions(log_count=recipe.log_count)).to(device)
    network.head.scale.fit(torch.from_numpy(bags.clinical[patients]).to(device))
    return network


def load_moe(path: Path) -> MixtureOfExperts:
    """Load the network from a checkpoint, in evaluation mode."""
    network = MixtureOfExperts(MoeDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def moe_loss(output: GatedOutput, labels: Tensor, expert_loss: float, malignant: float = MALIGNANT_WEIGHT) -> Tensor:
    """Cross-entropy of the mixture, plus `expert_loss` times the cross-entropy of each expert alone.

    Args:
        output: predictions for P patients.
        labels: (P,) 1 malignant, 0 reactive.
        expert_loss: weight of the experts' own losses.
        malignant: class weight of malignant patients; that of reactive patients is 1.
    """
    total = weighted_cross_entropy(output.probability, labels, malignant)
    if expert_loss:
        image = weighted_cross_entropy(output.image, labels, malignant)
        total = total + expert_loss * (image + weighted_cross_entropy(output.clinical, labels, malignant))
    return total


def malignant_weight(recipe: MoeRecipe, labels: Indices) -> float:
    """Class weight of malignant patients relative to reactive ones: the recipe's, or the one that balances the classes.

    Args:
        recipe: its malignant_weight is used unless it is None.
        labels: (P,) labels of the training patients.
    """
    if recipe.malignant_weight is not None:
        return recipe.malignant_weight
    return float((labels == 0).sum() / (labels == 1).sum())


def gate_loss(gate: Tensor, pull: float) -> Tensor:
    """Regularisation of the gate towards one half: `pull` times the mean squared distance; (P,) -> scalar."""
    return pull * ((gate - 0.5) ** 2).mean()


def weighted_cross_entropy(probability: Tensor, labels: Tensor, malignant: float = MALIGNANT_WEIGHT) -> Tensor:
    """torch's weighted cross-entropy, from P(malignant) instead of logits, which a mixture does not have: scalar."""
    weights = torch.where(labels == 1, malignant, 1.0)
    # A float32 softmax can be exactly 0; the logarithm must stay finite.
    likelihood = torch.where(labels == 1, probability, 1 - probability).clamp_min(1e-7)
    return -(weights * likelihood.log()).sum() / weights.sum()


def fit_clinical_side(
    network: MixtureOfExperts, bags: Bags, patients: Indices, recipe: MoeRecipe, device: torch.device
) -> None:
    """Refit the clinical expert, then the gate, in place, with the trained encoder and image expert frozen.

    In joint training the image expert soon explains the training patients better than sex, count and age can, and the
    gate prefers it for everyone: it learns who was memorised, not who can be judged by pictures. So the clinical expert
    first converges on its own loss, and the gate is regularised towards one half.
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
        output: GatedOutput = head(means, clinical)
        mixture = weighted_cross_entropy(output.probability, labels, malignant)
        return mixture + gate_loss(output.gate, recipe.gate_pull)

    for part, loss in ((head.clinical_expert, clinical_loss), (head.gate, mixture_loss)):
        optimizer = torch.optim.Adam(part.parameters(), lr=0.05, weight_decay=recipe.fit.weight_decay)
        for _ in range(recipe.late_steps):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def predict(path: Path, bags: Bags, patients: Indices, device: torch.device) -> dict[str, Floats]:
    """Score patients on all their pictures: OUTPUTS, each (len(patients),); pictures_only is the image expert."""
    result = score(load_moe(path).to(device), bags, patients, device)
    return {**result, "pictures_only": result["image"]}


def score(network: MixtureOfExperts, bags: Bags, patients: Indices, device: torch.device) -> dict[str, Floats]:
    """OUTPUTS for patients on all their pictures, each (len(patients),). The network must be in evaluation mode."""
    return judge(network, mean_maps(network, bags, patients, device), bags.clinical[patients])


def seen(network: MixtureOfExperts, bags: Bags, patients: Indices, device: torch.device) -> dict[str, Floats]:
    """Probabilities by the patients' own pictures, by swapped and by blank ones: each (P,)."""
    everybody = np.append(patients, NOBODY)
    maps = dict(zip(everybody.tolist(), mean_maps(network, bags, everybody, device), strict=True))
    clinical = bags.clinical[patients]

    def by(shown: Indices) -> Floats:
        return judge(network, torch.stack([maps[whose] for whose in shown.tolist()]), clinical)["probability"]

    return by_pictures(patients, bags.patient_ids, by)


def judge(network: MixtureOfExperts, means: Tensor, clinical: npt.NDArray[np.float32]) -> dict[str, Floats]:
    """OUTPUTS from mean feature maps, each (P,).

    Args:
        network: in evaluation mode.
        means: (P, 256, 3, 3) from mean_maps.
        clinical: (P, 3) raw clinical values.
    """
    with torch.inference_mode():
        output = network.head(means, torch.from_numpy(clinical).to(means.device))
    return {name: getattr(output, name).double().cpu().numpy() for name in OUTPUTS}


def mean_maps(network: MixtureOfExperts, bags: Bags, patients: Indices, device: torch.device) -> Tensor:
    """Mean of the encoder's feature maps over all pictures of each patient: (P, 256, 3, 3)."""
    means = []
    with torch.no_grad():
        for patient in patients:
            crops = bags.pictures(patient)
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
    """Batches of one epoch: all patients once in random order, with a sample of each patient's pictures.

    Args:
        bags: all patients.
        patients: indices of the training patients.
        batch_patients: patients per batch.
        images_per_patient: maximum number of pictures per patient; 0 means all.
        rng: random generator of the epoch.
        device: device of the batches.
        turns: whether each picture is put into a random one of its eight orientations.
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


def _forward(network: MixtureOfExperts, batch: MoeBatch, device: torch.device) -> GatedOutput:
    with mixed_precision(device):
        maps = network.encoder(batch.images)
    return network.head(bag_means(maps.float(), batch.patient, len(batch.labels)), batch.clinical)  # type: ignore[no-any-return]


def one_mixture(bags: Bags, recipe: MoeRecipe, seed: int, device: torch.device) -> Candidate:
    """One mixture of experts, with the late fit of its clinical side if the recipe asks for it.

    Column TURNED has predictions of the same network with every picture in all eight orientations.
    """

    def predicted(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        if not checkpoint.exists():
            network = train_network(bags, training, recipe, Job(f"nested {checkpoint.stem}", checkpoint, seed), device)
            if recipe.late_steps:
                fit_clinical_side(network, bags, training, recipe, device)
            save_network(checkpoint, network.cpu(), network.dimensions)
        network = load_moe(checkpoint).to(device)
        turned = score(network, turned_bags(bags, asked), asked, device)
        return {**seen(network, bags, asked, device), TURNED: turned["probability"]}

    facts = {"recipe": asdict(recipe), "seed": seed, "columns": [*COLUMNS, TURNED]}
    return Candidate("moe", facts, predicted, repeated=False)
