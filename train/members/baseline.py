"""The report's baseline: a small CNN on single pictures, with the clinical values concatenated to its features.

A patient's probability is the mean over their pictures.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.core.arrays import Floats, Indices
from train.core.checkpoint import load_dimensions, load_weights, save_network
from train.core.curves import Curves, held_out_by
from train.core.fitting import Job, fit
from train.core.seeds import seeded
from train.data.augment import turn_and_flip
from train.data.bags import Bags, in_batches
from train.data.inputs import Normalise, ScaleClinical
from train.data.whose_pictures import COLUMNS, by_pictures
from train.members.candidate import Candidate
from train.members.out_of_fold import Trainee, batches_of, class_weights, cross_predict
from train.members.recipes import ALL_IMAGES, BaselineRecipe
from train.members.training import MemberJob, MemberTraining, NestedJob

FOLDER = "baseline"


@dataclass(frozen=True)
class BaselineDimensions:
    """Sizes needed to rebuild the network from a checkpoint."""

    channels: tuple[int, int] = (6, 16)
    hidden: tuple[int, int] = (120, 84)
    log_count: bool = False


class Baseline(nn.Module):
    """uint8 (N, 112, 112, 3) and raw clinical values (N, 3) -> logits (N, 2)."""

    def __init__(self, dimensions: BaselineDimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        first, second = dimensions.channels
        self.normalise = Normalise()
        self.scale = ScaleClinical(dimensions.log_count)
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, first, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2),  # 112 -> 108 -> 54
            nn.Conv2d(first, second, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2),  # 54 -> 50 -> 25
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(second * 25 * 25 + 3, dimensions.hidden[0]),
            nn.ReLU(inplace=True),
            nn.Linear(dimensions.hidden[0], dimensions.hidden[1]),
            nn.ReLU(inplace=True),
            nn.Linear(dimensions.hidden[1], 2),
        )

    def forward(self, images: Tensor, clinical: Tensor) -> Tensor:
        maps = self.convolutions(self.normalise(images))  # (N, 16, 25, 25)
        return self.classifier(torch.cat([maps.flatten(1), self.scale(clinical)], dim=1))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class BaselineBatch:
    """Pictures with their patients' clinical values and labels."""

    images: Tensor
    clinical: Tensor
    labels: Tensor
    patients: Indices  # (N,) patient index of each picture


def train_baseline(
    bags: Bags, folds: Indices, run: Path, recipe: BaselineRecipe, seed: int, device: torch.device
) -> pd.DataFrame:
    """Train what is missing in RUN/baseline and return the out-of-fold predictions, one row per patient."""

    def train(patients: Indices, path: Path) -> None:
        curves = _curves(bags, patients, recipe, device)
        network = train_network(bags, patients, recipe, Job(f"baseline {path.stem}", path, seed), device, curves)
        save_network(path, network, network.dimensions)

    return cross_predict(bags, folds, run / FOLDER, Trainee(train, lambda path, of: predict(path, bags, of, device)))


def _curves(bags: Bags, training: Indices, recipe: BaselineRecipe, device: torch.device) -> Curves[Baseline] | None:
    """Curves on the patients left out, by as many pictures of each as an epoch has; they choose nothing."""
    held_out, most = held_out_by(bags.labels, training), recipe.images_per_patient
    if not len(held_out):
        return None
    return Curves(bags.labels, held_out, lambda network, of: score(network, bags, of, device, most=most))


def train_network(
    bags: Bags,
    patients: Indices,
    recipe: BaselineRecipe,
    job: Job,
    device: torch.device,
    curves: Curves[Baseline] | None = None,
) -> Baseline:
    """Train on the given patients; `curves` records metrics after each epoch."""
    seeded(job.seed, job.name)
    network = Baseline(BaselineDimensions(log_count=recipe.log_count)).to(device)
    network.scale.fit(torch.from_numpy(bags.clinical[patients]).to(device))
    weights = class_weights(device)

    def loss(net: Baseline, batch: BaselineBatch) -> Tensor:
        logits = net(batch.images, batch.clinical)
        if curves:
            curves.record(batch.patients, logits.softmax(1)[:, 1])
        return functional.cross_entropy(logits, batch.labels, weights)

    return fit(
        network,
        lambda rng: _epoch(bags, patients, recipe, rng, device),
        loss,
        recipe.fit,
        job,
        observe=curves.observe if curves else None,
    ).cpu()


def load_baseline(path: Path) -> Baseline:
    """Load the network from a checkpoint, in evaluation mode."""
    network = Baseline(BaselineDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def predict(path: Path, bags: Bags, patients: Indices, device: torch.device) -> dict[str, Floats]:
    """Score patients on all their pictures: probability, and pictures_only with the same clinical values for everyone.

    For pictures_only the clinical values are the medians of the scored patients; no label is used.
    """
    network = load_baseline(path).to(device)
    typical = np.median(bags.clinical[patients], axis=0)
    alike = replace(bags, clinical=np.broadcast_to(typical, bags.clinical.shape).copy())
    return {
        "probability": score(network, bags, patients, device),
        "pictures_only": score(network, alike, patients, device),
    }


def score(
    network: Baseline,
    bags: Bags,
    patients: Indices,
    device: torch.device,
    shown: Indices | None = None,
    *,
    most: int = ALL_IMAGES,
) -> Floats:
    """Mean probability over the pictures of each patient: (len(patients),). The network must be in evaluation mode.

    Args:
        network: the network.
        bags: all patients.
        patients: indices of the patients to score.
        device: where the network is.
        shown: whose pictures they are scored by (train/data/whose_pictures.py); default: their own.
        most: pictures of each patient, the first by name; 0 means all.
    """
    result = np.empty(len(patients))
    with torch.inference_mode():
        for row, (patient, whose) in enumerate(zip(patients, patients if shown is None else shown, strict=True)):
            clinical = torch.from_numpy(bags.clinical[patient]).to(device)
            total = 0.0
            crops = bags.pictures(whose)[: most or None]
            for images in in_batches(crops):
                logits = network(images.to(device), clinical.expand(len(images), 3))
                total += logits.softmax(1)[:, 1].double().sum().item()
            result[row] = total / len(crops)
    return result


def _epoch(
    bags: Bags, patients: Indices, recipe: BaselineRecipe, rng: np.random.Generator, device: torch.device
) -> Iterator[BaselineBatch]:
    chosen = np.concatenate(bags.sample(patients, recipe.images_per_patient, rng))
    owner = bags.patient_of_image()
    for indices in batches_of(rng.permutation(chosen), recipe.batch_images):
        of = owner[indices]
        images = bags.crops[torch.from_numpy(indices)].to(device)
        yield BaselineBatch(
            turn_and_flip(images) if recipe.turns else images,
            torch.from_numpy(bags.clinical[of]).to(device),
            torch.from_numpy(bags.labels[of]).to(device),
            of,
        )


def candidate(job: NestedJob) -> Candidate:
    """This member for the nested protocol."""
    recipe = job.recipe.baseline

    def predicted(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        if not checkpoint.exists():
            fitting = Job(f"nested {checkpoint.stem}", checkpoint, job.seed)
            network = train_network(job.bags, training, recipe, fitting, job.device)
            save_network(checkpoint, network, network.dimensions)
        network = load_baseline(checkpoint).to(job.device)
        return by_pictures(
            asked, job.bags.patient_ids, lambda shown: score(network, job.bags, asked, job.device, shown)
        )

    facts = {"recipe": asdict(recipe), "seed": job.seed, "columns": COLUMNS}
    return Candidate("baseline", facts, predicted, repeated=False)


def _train(job: MemberJob) -> None:
    train_baseline(job.bags, job.folds, job.run, job.recipe.baseline, job.seed, job.device)


TRAINING = MemberTraining(
    "baseline",
    FOLDER,
    "baseline",
    "Train the baseline CNN: once per fold (5) and once on all patients.",
    _train,
    lambda run: [run / FOLDER / "full.safetensors"],
    candidate,
    lambda recipe, seed: {"baseline": asdict(recipe.baseline), "seed": seed},
)
