"""Augmentation rotates, flips, crops and changes stain; there are exactly eight orientations."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from train.data.augment import ViewOptions, random_view, turn_and_flip

OFF = ViewOptions(crop=1.0, turns=False, gain=0.0, offset=0.0, saturation=(1.0, 1.0))


def orientations(picture: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    """The eight orientations of a picture whose first two axes are height and width."""
    turned = [np.rot90(picture, quarter) for quarter in range(4)]
    return turned + [np.flip(other, axis=1) for other in turned]


def orientation_of(found: npt.NDArray[np.generic], picture: npt.NDArray[np.generic], tolerance: float) -> int:
    """Index of the orientation; fails if none or more than one matches."""
    matches = [
        code for code, wanted in enumerate(orientations(picture)) if np.allclose(found, wanted, rtol=0, atol=tolerance)
    ]
    assert len(matches) == 1
    return matches[0]


def pixels(number: int, side: int = 9) -> Tensor:
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_turn_and_flip_gives_the_eight_orientations_and_nothing_else() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (400, 6, 6, 3), dtype=torch.uint8)
    turned = turn_and_flip(images)
    assert turned.dtype == torch.uint8
    assert turned.shape == images.shape
    codes = [orientation_of(turned[n].numpy(), images[n].numpy(), 0) for n in range(len(images))]
    counts = np.bincount(codes, minlength=8)
    assert counts.min() > 25  # 50 of each are expected
    assert counts.sum() == 400


def test_turns_alone_give_exactly_one_of_the_eight_orientations() -> None:
    torch.manual_seed(0)
    images = pixels(200)
    view = random_view(images, replace(OFF, turns=True))
    channels_last = (view.permute(0, 2, 3, 1).numpy(), images.permute(0, 2, 3, 1).numpy())
    codes = {orientation_of(found, picture, 1e-4) for found, picture in zip(*channels_last, strict=True)}
    assert codes == set(range(8))


def test_everything_off_is_the_identity() -> None:
    images = pixels(5)
    torch.testing.assert_close(random_view(images, OFF), images, rtol=0, atol=1e-5)


def test_two_views_of_one_picture_differ() -> None:
    images = pixels(5)
    assert not torch.allclose(random_view(images, ViewOptions()), random_view(images, ViewOptions()), atol=0.01)


def test_gain_multiplies_each_channel_within_its_limits() -> None:
    images = pixels(100)
    view = random_view(images, replace(OFF, gain=0.2))
    factor = view.abs().sum(dim=(2, 3)) / images.abs().sum(dim=(2, 3))  # (100, 3)
    torch.testing.assert_close(view, images * factor[:, :, None, None], rtol=0, atol=1e-4)
    assert 0.8 <= factor.min() < 0.85
    assert 1.15 < factor.max() <= 1.2
    assert factor.std(dim=1).min() > 0  # the channels of a picture differ


def test_offset_moves_a_whole_picture_within_its_limits() -> None:
    images = pixels(100)
    moved = random_view(images, replace(OFF, offset=0.3)) - images
    offset = moved.mean(dim=(1, 2, 3))
    torch.testing.assert_close(moved, offset[:, None, None, None].expand_as(moved), rtol=0, atol=1e-5)
    assert -0.3 <= offset.min() < -0.25
    assert 0.25 < offset.max() <= 0.3


def test_no_saturation_is_grey() -> None:
    images = pixels(5)
    grey = random_view(images, replace(OFF, saturation=(0.0, 0.0)))
    torch.testing.assert_close(grey, images.mean(dim=1, keepdim=True).expand_as(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("smallest", [0.5, 0.8])
def test_crop_is_square_inside_the_picture_and_as_large_as_asked(smallest: float) -> None:
    torch.manual_seed(0)
    along = torch.linspace(-1, 1, 65)  # at the centres of the first and last pixel
    ramp = torch.stack([along.expand(65, 65), along[:, None].expand(65, 65), torch.zeros(65, 65)])
    view = random_view(ramp.expand(200, 3, 65, 65), replace(OFF, crop=smallest))
    across = (view[:, 0, 32, 63] - view[:, 0, 32, 1]) / (along[63] - along[1])  # the slope is the side of the crop
    down = (view[:, 1, 63, 32] - view[:, 1, 1, 32]) / (along[63] - along[1])
    torch.testing.assert_close(across, down, rtol=0, atol=1e-3)
    assert smallest - 1e-3 < across.min() < smallest + 0.05
    assert 0.95 < across.max() < 1 + 1e-3
    centre = view[:, 0, 32, 32]
    assert (centre.abs() <= 1 - across + 0.02).all()
    assert centre.std() > 0.05  # not always central
