"""The fine-tuned expert: EfficientNet-Lite0 from its ImageNet weights, trained on what the clinical values leave open.

A logistic regression on sex, age and count is fitted first and then held. The network adds to its logit, so a
patient whom the count gives away teaches it little, and the grey zone much. Its own part is linear in the mean of a
patient's pictures: the mean of one number a picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from train.augment import random_view
from train.batch_norm import recalibrate
from train.checkpoint import load_dimensions, load_weights, save_network
from train.crops import Bags, in_batches
from train.curves import Floats, Indices
from train.embedding import FEATURES, EfficientNetLite0, load_embedding, normalised
from train.fitting import Job, fit, mixed_precision
from train.inputs import bent_features
from train.moe import NORM_BATCH, MoeBatch, bag_batches, norm_sample
from train.moe_network import bag_means
from train.out_of_fold import Trainee, cross_predict
from train.protocols import seeded
from train.recipes import FineTunedRecipe

FOLDER = "finetuned"
CLINICAL_STRENGTH = 3.0  # scikit-learn's C


@dataclass(frozen=True)
class FineTunedDimensions:
    """Sizes a checkpoint needs to rebuild its network."""

    input_size: int = 112  # pixels that a crop is resized to


class ClinicalLogit(nn.Module):
    """Raw (P, 3) sex, count in 10^9/L, age in years -> logit of a logistic regression on `bent_features`: (P,)."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: Tensor
        self.bias: Tensor
        self.register_buffer("weights", torch.zeros(4))
        self.register_buffer("bias", torch.zeros(()))

    def fit(self, clinical: Tensor, labels: Indices) -> None:
        """Fit on training patients, slightly regularised: (P, 3), (P,)."""
        model = LogisticRegression(C=CLINICAL_STRENGTH).fit(bent_features(clinical).double().numpy(), labels)
        self.weights.copy_(torch.from_numpy(model.coef_[0]))
        self.bias.fill_(float(model.intercept_[0]))

    def forward(self, clinical: Tensor) -> Tensor:
        return bent_features(clinical) @ self.weights + self.bias


class PictureExpert(nn.Module):
    """uint8 (N, 112, 112, 3) -> what each picture adds to its patient's logit, (N,)."""

    def __init__(self, dimensions: FineTunedDimensions) -> None:
        super().__init__()
        self._size = dimensions.input_size
        self.embedding = EfficientNetLite0()
        self.linear = nn.Linear(FEATURES, 1)
        nn.init.zeros_(self.linear.weight)  # training begins at the clinical model
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.embed(normalised(images))).squeeze(1)  # type: ignore[no-any-return]

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, 3, H, W) -> features (N, 1280)."""
        if pixels.shape[-1] != self._size:
            pixels = functional.interpolate(pixels, size=self._size, mode="bilinear", align_corners=False)
        return self.embedding.features(pixels)


class FineTuned(nn.Module):
    """Clinical logit and the pictures' share in it."""

    def __init__(self, dimensions: FineTunedDimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.clinical = ClinicalLogit()
        self.pictures = PictureExpert(dimensions)


def train_finetuned(
    bags: Bags, folds: Indices, run: Path, recipe: FineTunedRecipe, seed: int, device: torch.device
) -> pd.DataFrame:
    """Train what is missing in RUN/finetuned and return the out-of-fold predictions, a row a patient."""

    def train(patients: Indices, path: Path) -> None:
        network = train_network(bags, patients, recipe, Job(f"finetuned {path.stem}", path, seed), device)
        save_network(path, network.cpu(), network.dimensions)

    return cross_predict(bags, folds, run / FOLDER, Trainee(train, lambda path, of: predict(path, bags, of, device)))


def train_network(bags: Bags, patients: Indices, recipe: FineTunedRecipe, job: Job, device: torch.device) -> FineTuned:
    """Train on some patients: the averaged weights, batch norm's statistics of those patients' pictures."""
    seeded(job.seed, job.name)
    network = FineTuned(FineTunedDimensions(recipe.input_size))
    network.pictures.embedding.load_state_dict(load_embedding().state_dict())
    network.clinical.fit(torch.from_numpy(bags.clinical[patients]), bags.labels[patients])
    network.to(device)

    def loss(net: FineTuned, batch: MoeBatch) -> Tensor:
        with mixed_precision(device):
            features = net.pictures.embed(random_view(normalised(batch.images), recipe.views))
        means = bag_means(features.float(), batch.patient, len(batch.labels))  # (P, 1280)
        added = net.pictures.linear(functional.dropout(means, recipe.dropout)).squeeze(1)  # (P,)
        return functional.binary_cross_entropy_with_logits(net.clinical(batch.clinical) + added, batch.labels.float())

    def epoch(rng: np.random.Generator) -> Iterator[MoeBatch]:
        return bag_batches(bags, patients, recipe.batch_patients, recipe.images_per_patient, rng, device, turns=False)

    trained = fit(
        network,
        epoch,
        loss,
        recipe.fit,
        job,
        parameters=[
            {"params": list(network.pictures.embedding.parameters())},
            {"params": list(network.pictures.linear.parameters()), "lr": recipe.fit.learning_rate * recipe.head_rate},
        ],
    )
    sample = norm_sample(bags, patients, recipe.norm_images, job)
    recalibrate(trained.pictures, in_batches(bags.crops[sample].to(device), NORM_BATCH))
    return trained


def load_finetuned(path: Path) -> FineTuned:
    """The network of a checkpoint, in evaluation mode."""
    network = FineTuned(FineTunedDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def predict(path: Path, bags: Bags, patients: Indices, device: torch.device) -> dict[str, Floats]:
    """Score patients on all their pictures: probability, and as pictures_only what the pictures add, each (P,)."""
    network = load_finetuned(path).to(device)
    clinical = torch.from_numpy(bags.clinical[patients]).to(device)
    with torch.inference_mode():
        added = torch.stack([picture_logits(network, bags, patient, device).mean() for patient in patients])
        probability = (network.clinical(clinical) + added).double().sigmoid()
    return {"probability": probability.cpu().numpy(), "pictures_only": added.double().sigmoid().cpu().numpy()}


def picture_logits(network: FineTuned, bags: Bags, patient: int, device: torch.device) -> Tensor:
    """What each picture of a patient adds to its logit: (n,)."""
    crops = bags.crops[int(bags.offsets[patient]) : int(bags.offsets[patient + 1])]
    return torch.cat([network.pictures(images.to(device)) for images in in_batches(crops)])
