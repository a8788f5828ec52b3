"""Rounding of weights to integers whose products no processor's kernel lets overflow."""

import torch
from torch import Tensor

LARGEST = 127  # absolute value of a quantised weight
# Processors without VNNI add the products of two neighbouring input channels in 16 bits: 255 * 128 fits, more does not.
LARGEST_PAIR = 128
# Of the mean variance, added to every input channel's: few pictures must not decide alone. PULL is towards the exact
# weights, DAMPING towards rounding each weight by itself.
PULL, DAMPING = 0.1, 0.01


def depthwise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers (out, 1, side, side) and their scale (out,); onnxruntime multiplies and adds them without overflow."""
    scale = _positive(weight.abs().amax((1, 2, 3)) / LARGEST)
    return (weight / scale[:, None, None, None]).round(), scale


def refitted(weight: Tensor, covariance: Tensor, shared: Tensor) -> Tensor:
    """The weights that give the exact sums best from inputs that earlier layers have rounded (ridge regression).

    Args:
        weight: (out, in, 1, 1).
        covariance: (in, in) of the rounded input's channels.
        shared: (in, in) covariance of the exact input's channels with the rounded input's.
    """
    pull = _damping(PULL, covariance)
    target = weight.flatten(1).double() @ (shared.double() + pull)
    solved: Tensor = torch.linalg.solve(covariance.double() + pull, target, left=False)
    return solved.float()[:, :, None, None]


def pointwise(weight: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Integers (out, in, 1, 1) and their scale (out,), one input channel after another.

    The error of a channel is made up for by those that are still to be rounded, as far as they correlate with it
    (Frantar et al. 2023, "GPTQ").

    Args:
        weight: (out, in, 1, 1).
        covariance: (in, in) of the input's channels.
    """
    rest = weight.flatten(1).double()
    scale = _positive(torch.maximum(rest.abs().amax(1) / LARGEST, _pairs(rest) / (LARGEST_PAIR - 1)).float())
    inverse = torch.linalg.inv(covariance.double() + _damping(DAMPING, covariance))
    feedback = torch.linalg.cholesky(inverse, upper=True)
    integers = torch.zeros_like(rest)
    room = torch.full((2, len(rest)), float(LARGEST), dtype=torch.float64)  # below and above 0
    for index in range(rest.shape[1]):
        column = (rest[:, index] / scale).round().clamp(-room[0], room[1])
        error = (rest[:, index] - column * scale) / feedback[index, index]
        rest[:, index:] -= error[:, None] * feedback[index, index:]
        integers[:, index] = column
        room = (LARGEST_PAIR - torch.stack([-column, column]).clamp_min(0)).clamp_max(LARGEST)
    return integers.float()[:, :, None, None], scale


def _damping(share: float, covariance: Tensor) -> Tensor:
    size = (share * covariance.diagonal().mean().double()).clamp_min(1e-12)
    return size * torch.eye(len(covariance), dtype=torch.float64)


def _pairs(weight: Tensor) -> Tensor:
    """Largest sum of two neighbours with the same sign: (out, in) -> (out,)."""
    sides = torch.stack([weight, -weight]).clamp_min(0)
    return (sides[..., 1:] + sides[..., :-1]).amax((0, 2))


def _positive(scale: Tensor) -> Tensor:
    """The network has channels whose weights are all 0, or almost."""
    return scale.clamp_min(1e-12)
