"""Preprocessing of raw inputs inside the networks."""

import math

import pytest
import torch
from torchvision.transforms import v2

from train.data.inputs import MEAN, STD, Normalise, ScaleClinical, bent_features


def test_normalise_equals_torchvision() -> None:
    images = torch.randint(0, 256, (4, 11, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    reference = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    pixels = Normalise()(images)
    assert pixels.shape == (4, 3, 11, 7)
    torch.testing.assert_close(pixels, reference(images.permute(0, 3, 1, 2)), rtol=0, atol=2e-6)


def test_normalise_by_hand() -> None:
    black, white = Normalise()(torch.tensor([[[[0, 0, 0], [255, 255, 255]]]], dtype=torch.uint8)).unbind(3)
    expected = [
        [[-m / s] for m, s in zip(MEAN, STD, strict=True)],
        [[(1 - m) / s] for m, s in zip(MEAN, STD, strict=True)],
    ]
    torch.testing.assert_close(torch.stack([black[0], white[0]]), torch.tensor(expected), rtol=0, atol=1e-6)


CLINICAL = torch.tensor([[0.0, 4.0, 20.0], [1.0, 64.0, 90.0], [1.0, 16.0, 55.0]])


def test_clinical_values_are_scaled_to_0_and_1() -> None:
    scale = ScaleClinical()
    scale.fit(CLINICAL)
    torch.testing.assert_close(scale(CLINICAL), torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0.2, 0.5]]))
    torch.testing.assert_close(scale(torch.tensor([[0.0, 124.0, 160.0]])), torch.tensor([[0.0, 2.0, 2.0]]))


def test_log_count_scales_the_logarithm() -> None:
    scale = ScaleClinical(log_count=True)
    scale.fit(CLINICAL)
    torch.testing.assert_close(scale(CLINICAL), torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0.5, 0.5]]))
    assert scale.low[1].item() == pytest.approx(math.log(4))


def test_a_constant_column_becomes_0() -> None:
    scale = ScaleClinical()
    scale.fit(torch.tensor([[1.0, 5.0, 30.0], [1.0, 7.0, 30.0]]))
    torch.testing.assert_close(scale(torch.tensor([[1.0, 6.0, 30.0]])), torch.tensor([[0.0, 0.5, 0.0]]))


def test_scaling_is_kept_with_the_weights() -> None:
    scale, other = ScaleClinical(), ScaleClinical()
    scale.fit(CLINICAL)
    other.load_state_dict(scale.state_dict())
    torch.testing.assert_close(other(CLINICAL), scale(CLINICAL), rtol=0, atol=0)


def test_the_count_bends_at_seven() -> None:
    clinical = torch.tensor([[1.0, math.e**2, 70.0], [0.0, 3.0, 60.0], [0.0, 14.0, 50.0]])
    found = bent_features(clinical)
    expected = [
        [1, 0, 1, 3 * (2 - math.log(7))],
        [0, math.log(3) - 2, 0, 0],
        [0, math.log(14) - 2, -1, 3 * math.log(2)],
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-5, rtol=1e-5)
