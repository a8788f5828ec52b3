"""Preprocessing of raw inputs. It is part of every network, and so of every exported graph: no caller can forget it."""

import torch
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, as in the report
STD = (0.229, 0.224, 0.225)


KNOT = 7.0  # 10^9/L; above it the log count gets an additional slope
EXCESS = 3.0  # scales the excess to the order of one


def bent_features(clinical: Tensor) -> Tensor:
    """Raw (P, 3) sex, count, age -> (P, 4) sex, log count, age and excess of the log count over KNOT, of order one.

    A count far above the reactive range means malignant whatever the other values are, while lower counts are hardly
    informative: a single slope cannot fit both.
    """
    sex, count, age = clinical.unbind(1)
    excess = EXCESS * (count / KNOT).log().clamp_min(0)
    return torch.stack([sex, count.log() - 2, (age - 60) / 10, excess], dim=1)


class Normalise(nn.Module):
    """uint8 (N, H, W, 3) -> float (N, 3, H, W), channels-last in memory, standardised with ImageNet's mean and std."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: Tensor
        self.shift: Tensor
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.register_buffer("scale", (1.0 / (255.0 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)  # (N, 3, H, W), a view with channels last
        return pixels * self.scale + self.shift


class ScaleClinical(nn.Module):
    """Raw (P, 3) sex, count in 10^9/L, age in years -> min-max scaled, 0 to 1 over the training patients.

    With `log_count` the logarithm of the count is scaled: counts range from 4 to 300, but patients differ mostly below
    30, which plain min-max scaling compresses into the lowest tenth.
    """

    def __init__(self, log_count: bool = False) -> None:
        super().__init__()
        self.log_count = log_count
        self.low: Tensor
        self.range: Tensor
        self.register_buffer("low", torch.zeros(3))
        self.register_buffer("range", torch.ones(3))

    def fit(self, clinical: Tensor) -> None:
        """Set minimum and range from the training patients' raw values (P, 3)."""
        values = self._transform(clinical)
        spread = values.amax(0) - values.amin(0)
        self.low = values.amin(0)
        self.range = torch.where(spread > 0, spread, torch.ones_like(spread))

    def forward(self, clinical: Tensor) -> Tensor:
        return (self._transform(clinical) - self.low) / self.range

    def _transform(self, clinical: Tensor) -> Tensor:
        if not self.log_count:
            return clinical
        sex, count, age = clinical.unbind(1)
        return torch.stack([sex, torch.log(count), age], dim=1)
