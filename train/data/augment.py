"""Augmentation of whole batches on the training device, without Python code per picture.

Supervised training uses flips and quarter turns (a smear has no preferred orientation). SimCLR also uses random crops
and a mild stain jitter, so that what two views have in common is the cell's shape and not its stain.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.core.arrays import Indices
from train.data.bags import Bags


@dataclass(frozen=True)
class ViewOptions:
    """Augmentations of SimCLR's two views; each can be switched off."""

    crop: float = 0.6  # smallest side of the random crop, as a fraction of the picture's side; 1 switches it off
    turns: bool = True  # flips and quarter turns: a smear has no preferred orientation
    gain: float = 0.15  # each colour channel is scaled by 1 +- gain, uniform: stain and lamp differ between slides
    offset: float = 0.15  # largest brightness shift, in standard deviations
    saturation: tuple[float, float] = (0.4, 1.2)  # range; 0 is grey, 1 leaves the picture unchanged

    def without(self, names: tuple[str, ...]) -> "ViewOptions":
        """The same options with some of AUGMENTATIONS switched off."""
        options = self
        if "crop" in names:
            options = replace(options, crop=1.0)
        if "turns" in names:
            options = replace(options, turns=False)
        if "stain" in names:
            options = replace(options, gain=0.0, offset=0.0, saturation=(1.0, 1.0))
        return options


AUGMENTATIONS = ("crop", "turns", "stain")


def turn_and_flip(images: Tensor) -> Tensor:
    """Put each picture into a random one of its eight orientations: (N, H, W, C) with H = W -> the same shape."""
    orientation = torch.randint(0, 8, (len(images),), device=images.device)
    result = torch.empty_like(images)
    for code in range(8):
        chosen = (orientation == code).nonzero().squeeze(1)
        turned = torch.rot90(images[chosen], code % 4, (1, 2))
        result[chosen] = turned.flip(2) if code >= 4 else turned
    return result


def random_view(pixels: Tensor, options: ViewOptions) -> Tensor:
    """A random augmented view of each normalised picture: (N, 3, H, W) -> the same shape."""
    return _jitter_stain(_crop_and_turn(pixels, options), options)


def _crop_and_turn(pixels: Tensor, options: ViewOptions) -> Tensor:
    """Crop, flip and rotate in a single bilinear resampling."""
    number, device = len(pixels), pixels.device
    side = torch.empty(number, device=device).uniform_(options.crop, 1.0)
    centre = (torch.rand(number, 2, device=device) * 2 - 1) * (1 - side)[:, None]  # (N, 2), keeps the crop inside
    linear = torch.eye(2, device=device).expand(number, 2, 2)
    if options.turns:
        quarter = torch.randint(0, 4, (number,), device=device)
        cosine = torch.tensor([1.0, 0.0, -1.0, 0.0], device=device)[quarter]
        sine = torch.tensor([0.0, 1.0, 0.0, -1.0], device=device)[quarter]
        mirror = torch.randint(0, 2, (number,), device=device) * 2.0 - 1.0
        rows = [torch.stack([cosine * mirror, -sine], 1), torch.stack([sine * mirror, cosine], 1)]
        linear = torch.stack(rows, dim=1)  # (N, 2, 2)
    affine = torch.cat([linear * side[:, None, None], centre[:, :, None]], dim=2)  # (N, 2, 3)
    grid = functional.affine_grid(affine, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def _jitter_stain(pixels: Tensor, options: ViewOptions) -> Tensor:
    number, device = len(pixels), pixels.device
    saturation = torch.empty(number, 1, 1, 1, device=device).uniform_(*options.saturation)
    gain = torch.empty(number, 3, 1, 1, device=device).uniform_(1 - options.gain, 1 + options.gain)
    offset = torch.empty(number, 1, 1, 1, device=device).uniform_(-options.offset, options.offset)
    grey = pixels.mean(dim=1, keepdim=True)
    return (grey + (pixels - grey) * saturation) * gain + offset


def turned_bags(bags: Bags, patients: Indices) -> Bags:
    """Bags with every picture of the given patients in all eight orientations, so eight times as large.

    The bags of all other patients are empty.
    """
    crops, sizes = [], np.zeros(len(bags), dtype=np.int64)
    for patient, (start, stop) in enumerate(bags.ranges()):
        if patient in patients:
            crops.append(orientations(bags.crops[int(start) : int(stop)]))
            sizes[patient] = len(crops[-1])
    return replace(bags, crops=torch.cat(crops), offsets=np.concatenate([[0], np.cumsum(sizes)]), image_names=[])


def orientations(images: Tensor) -> Tensor:
    """All eight flips and quarter turns: (N, H, W, 3) -> (8 N, H, W, 3)."""
    turned = [torch.rot90(images, turns, (1, 2)) for turns in range(4)]
    return torch.cat([*turned, *[picture.flip(2) for picture in turned]])
