"""The mixture of experts: an image expert and a clinical expert, weighted per patient by a gate.

Collin & Le Chenadec, figure 1, after Sahasrabudhe et al. 2021. Two errors of the report's code are not repeated: its
clinical expert gave the same number to both classes, and its sigmoid outputs went into a softmax cross-entropy.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.data.inputs import Normalise, ScaleClinical
from train.members.gated import GatedOutput


@dataclass(frozen=True)
class MoeDimensions:
    """Sizes needed to rebuild the network from a checkpoint."""

    channels: tuple[int, ...] = (8, 16, 32, 64, 128, 256)  # of each block, with 2 x 2 max-pool between: 112 -> 3 px
    log_count: bool = False


class Encoder(nn.Module):
    """uint8 (N, 112, 112, 3) -> feature maps (N, 256, 3, 3)."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.normalise = Normalise()
        layers: list[nn.Module] = []
        previous = 3
        for index, width in enumerate(channels):
            if index:
                layers.append(nn.MaxPool2d(2))
            layers += [*_conv_bn_relu(previous, width), *_conv_bn_relu(width, width)]
            previous = width
        self.blocks = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.normalise(images))  # type: ignore[no-any-return]


class Head(nn.Module):
    """Bag means (P, 256, 3, 3) and raw clinical values (P, 3) -> GatedOutput."""

    def __init__(self, channels: int, log_count: bool) -> None:
        super().__init__()
        self.scale = ScaleClinical(log_count)
        self.image_map = nn.Conv2d(channels, 1, 1)
        self.image_expert = nn.Linear(9, 2)
        self.clinical_expert = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), nn.Linear(2, 2))
        self.gate_map = nn.Conv2d(channels, 1, 1)
        self.gate = nn.Sequential(nn.Dropout(0.1), nn.Linear(9 + 3, 2))

    def forward(self, bags: Tensor, clinical: Tensor) -> GatedOutput:
        scaled = self.scale(clinical)  # (P, 3)
        image = self.image_expert(self.image_map(bags).flatten(1)).softmax(1)  # (P, 2)
        clinic = self.clinical_expert(scaled).softmax(1)  # (P, 2)
        seen = torch.cat([self.gate_map(bags).tanh().flatten(1), scaled], dim=1)  # (P, 12)
        gate = self.gate(seen).softmax(1)  # (P, 2): weights of the image expert and the clinical expert
        mixed = gate[:, :1] * image + gate[:, 1:] * clinic  # (P, 2)
        return GatedOutput(mixed[:, 1], image[:, 1], clinic[:, 1], gate[:, 0])


class MixtureOfExperts(nn.Module):
    """Encoder, mean over each patient's pictures, head."""

    def __init__(self, dimensions: MoeDimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.encoder = Encoder(dimensions.channels)
        self.head = Head(dimensions.channels[-1], dimensions.log_count)

    def forward(self, images: Tensor, patient: Tensor, clinical: Tensor) -> GatedOutput:
        """Score patients.

        Args:
            images: (N, 112, 112, 3) uint8, the pictures of all patients.
            patient: (N,) int64, index of the patient of each picture; every patient has at least one picture.
            clinical: (P, 3) float32, raw clinical values.
        """
        return self.head(bag_means(self.encoder(images), patient, len(clinical)), clinical)  # type: ignore[no-any-return]


def bag_means(maps: Tensor, patient: Tensor, patients: int) -> Tensor:
    """Mean of features or feature maps over each patient's pictures: (N, ...) -> (P, ...)."""
    sums = maps.new_zeros((patients, *maps.shape[1:])).index_add(0, patient, maps)
    counts = torch.bincount(patient, minlength=patients).to(maps.dtype)
    return sums / counts.view(-1, *[1] * (maps.ndim - 1))


def _conv_bn_relu(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
