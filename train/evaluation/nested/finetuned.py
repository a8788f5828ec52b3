"""EfficientNet-Lite0 fine-tuned on what the clinical values do not explain. A lead, for a GPU.

A logistic regression on sex, age and count is fitted first and then frozen. The network adds to its logit, so patients
with an obvious count contribute little to training, and the grey zone contributes much. The network's contribution is
linear in a patient's mean features: it is the mean of one number per picture.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from train.core.arrays import Floats, Indices
from train.core.batch_norm import recalibrate
from train.core.checkpoint import load_dimensions, load_weights
from train.core.fitting import Job, fit, mixed_precision
from train.core.seeds import seeded
from train.data.augment import random_view
from train.data.bags import CROP_SIZE, Bags, in_batches
from train.data.inputs import bent_features
from train.data.whose_pictures import NOBODY, by_pictures
from train.members.embedding import FEATURES, FrozenBackbone, Magnification, load_embedding, normalised
from train.members.imagenet import ClinicalLogit
from train.members.mixture import NORM_BATCH, MoeBatch, bag_batches, norm_sample
from train.members.mixture_network import bag_means
from train.members.recipes import FineTunedRecipe

CLINICAL_STRENGTH = 3.0  # scikit-learn's C


@dataclass(frozen=True)
class FineTunedDimensions:
    """Sizes needed to rebuild the network from a checkpoint."""

    input_size: int  # px, a crop is resized to this side length


class PictureExpert(FrozenBackbone):
    """uint8 (N, 112, 112, 3) -> contribution of each picture to its patient's logit, (N,). Not frozen here."""

    def __init__(self, dimensions: FineTunedDimensions) -> None:
        super().__init__(Magnification(CROP_SIZE, dimensions.input_size))
        self.linear = nn.Linear(FEATURES, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.embed(normalised(images))).squeeze(1)  # type: ignore[no-any-return]


class FineTuned(nn.Module):
    """A patient's logit: the clinical part plus the mean contribution of the pictures."""

    def __init__(self, dimensions: FineTunedDimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.clinical = ClinicalLogit()
        self.pictures = PictureExpert(dimensions)

    def loss(self, means: Tensor, clinical: Tensor, labels: Tensor, dropout: float) -> Tensor:
        """Cross-entropy of patients with these mean features (P, 1280), raw clinical values (P, 3) and labels (P,)."""
        added = self.pictures.linear(functional.dropout(means, dropout)).squeeze(1)  # (P,)
        return functional.binary_cross_entropy_with_logits(self.clinical(clinical) + added, labels.float())


def untrained(bags: Bags, patients: Indices, recipe: FineTunedRecipe, job: Job) -> FineTuned:
    """The network as at the start of training: ImageNet's weights, and the clinical part fitted on the patients."""
    seeded(job.seed, job.name)
    network = FineTuned(FineTunedDimensions(recipe.input_size))
    network.pictures.embedding.load_state_dict(load_embedding().state_dict())
    clinical = bent_features(torch.from_numpy(bags.clinical[patients]).double()).numpy()
    model = LogisticRegression(C=CLINICAL_STRENGTH).fit(clinical, bags.labels[patients])
    network.clinical.set(model.coef_[0], float(model.intercept_[0]))
    return network


def train_network(
    bags: Bags,
    patients: Indices,
    recipe: FineTunedRecipe,
    job: Job,
    device: torch.device,
    begin: Callable[[], None] = lambda: None,
) -> FineTuned:
    """Train on the given patients; the result has averaged weights and recomputed batch norm statistics.

    `begin` is called before each epoch, and may stop the training by an error.
    """
    network = untrained(bags, patients, recipe, job).to(device)

    def loss(net: FineTuned, batch: MoeBatch) -> Tensor:
        with mixed_precision(device):
            features = net.pictures.embed(random_view(normalised(batch.images), recipe.views))
        means = bag_means(features.float(), batch.patient, len(batch.labels))  # (P, 1280)
        return net.loss(means, batch.clinical, batch.labels, recipe.dropout)

    def epoch(rng: np.random.Generator) -> Iterator[MoeBatch]:
        begin()
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
    """Load the network from a checkpoint, in evaluation mode."""
    network = FineTuned(FineTunedDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def predict(path: Path, bags: Bags, patients: Indices, device: torch.device) -> dict[str, Floats]:
    """Score patients: probability, the same by swapped and by blank pictures (train/data/whose_pictures.py), and
    pictures_only from the pictures' part alone, each (P,)."""
    network = load_finetuned(path).to(device)
    clinical = torch.from_numpy(bags.clinical[patients]).to(device)
    with torch.inference_mode():
        added = {whose: picture_logits(network, bags, whose, device).mean() for whose in [*patients.tolist(), NOBODY]}

        def judge(shown: Indices) -> Floats:
            logits = network.clinical(clinical) + torch.stack([added[whose] for whose in shown.tolist()])
            return np.asarray(logits.double().sigmoid().cpu().numpy())

        pictures_only = torch.stack([added[whose] for whose in patients.tolist()]).double().sigmoid().cpu().numpy()
        return {**by_pictures(patients, bags.patient_ids, judge), "pictures_only": pictures_only}


def picture_logits(network: FineTuned, bags: Bags, patient: int, device: torch.device) -> Tensor:
    """Contribution of each picture to a patient's logit: (n,)."""
    crops = bags.pictures(patient)
    return torch.cat([network.pictures(images.to(device)) for images in in_batches(crops)])
