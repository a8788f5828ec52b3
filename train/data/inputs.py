"""What every network does to its raw inputs. Inside the networks, hence inside the graphs, so nobody can forget it."""

import torch
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, as the report normalises
STD = (0.229, 0.224, 0.225)


KNOT = 7.0  # 10^9/L; above it a count says more than its logarithm's slope below it
EXCESS = 3.0  # makes the excess of the size of one


def bent_features(clinical: Tensor) -> Tensor:
    """Raw (P, 3) sex, count, age -> (P, 4) sex, log count, age and the count's excess over KNOT, of the size of one.

    A count far above what reactions reach is malignant whatever else is said, while among lower ones it hardly tells:
    one slope cannot be right for both.
    """
    sex, count, age = clinical.unbind(1)
    excess = EXCESS * (count / KNOT).log().clamp_min(0)
    return torch.stack([sex, count.log() - 2, (age - 60) / 10, excess], dim=1)


class Normalise(nn.Module):
    """uint8 (N, H, W, 3) -> float (N, 3, H, W), channels-last in memory, standardised by ImageNet's mean and std."""

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
    """Raw (P, 3) sex, count in 10^9/L, age in years -> min-max scaled to the training patients' 0..1.

    With `log_count` the count's logarithm is scaled: counts run from 4 to 300, and what separates patients lies
    below 30, which plain min-max presses into the lowest tenth.
    """

    def __init__(self, log_count: bool = False) -> None:
        super().__init__()
        self.log_count = log_count
        self.low: Tensor
        self.range: Tensor
        self.register_buffer("low", torch.zeros(3))
        self.register_buffer("range", torch.ones(3))

    def fit(self, clinical: Tensor) -> None:
        """Take minimum and range from the training patients' raw values: (P, 3)."""
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
