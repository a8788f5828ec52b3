"""The frozen backbone's features: onnxruntime's are torch's, magnification is what it says, and they are kept."""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.train.bags import make_bags
from train.members import features
from train.members.embedding import FEATURES, Magnification, load_backbone, normalised, weights_digest
from train.members.features import Features, embed_pictures, embedder

CPU = torch.device("cpu")


@pytest.mark.parametrize("magnification", [Magnification(112, 112), Magnification(112, 224), Magnification(80, 160)])
def test_onnxruntime_sees_what_torch_sees(magnification: Magnification) -> None:
    """By hand: the central square, enlarged with align_corners=False, then the network."""
    images = torch.randint(0, 256, (3, 112, 112, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    backbone = load_backbone(magnification)
    edge = (112 - magnification.crop) // 2
    square = images[:, edge : 112 - edge, edge : 112 - edge]
    pixels = functional.interpolate(normalised(square), size=magnification.size, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        expected = backbone.embedding.features(pixels).numpy()
        np.testing.assert_allclose(backbone(images).numpy(), expected, atol=1e-6)
    found = embedder(backbone, CPU)(images)
    assert found.shape == (3, FEATURES)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.ptp(expected, axis=0).max() > 0.05


def test_only_the_central_square_is_seen() -> None:
    backbone = load_backbone(Magnification(80, 96))
    images = torch.full((2, 112, 112, 3), 90, dtype=torch.uint8)
    images[1, :16] = images[1, -16:] = images[1, :, :16] = images[1, :, -16:] = 255
    with torch.inference_mode():
        same, edged = backbone(images)
        images[1, 16] = 255
        other = backbone(images)[1]
    assert torch.equal(same, edged)
    assert not torch.equal(same, other)


def test_pictures_smaller_than_the_square_are_an_error() -> None:
    with pytest.raises(ValueError, match="pictures of 64 x 48 have no central 80 x 80"):
        load_backbone(Magnification(80, 96))(torch.zeros(1, 48, 64, 3, dtype=torch.uint8))


def test_pictures_are_seen_once_and_a_blank_one_with_them(tmp_path: Path) -> None:
    bags = make_bags([0, 1], [2, 3], size=112)

    def mean_colours(*_: object) -> Callable[[Tensor], object]:
        return lambda images: images.float().mean(dim=(1, 2)).numpy()

    wanted = Magnification(96, 224)
    with patch.object(features, "embedder", mean_colours):
        first = embed_pictures(bags, tmp_path, CPU, wanted)
    np.testing.assert_allclose(first.pictures, bags.crops.float().mean(dim=(1, 2)), rtol=1e-6)
    assert first.blank.tolist() == [255, 255, 255]
    with patch.object(features, "embedder", side_effect=AssertionError):
        np.testing.assert_array_equal(embed_pictures(bags, tmp_path, CPU, wanted).pictures, first.pictures)
    name = f"features-{weights_digest()[:8]}-96-224"
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.npy", f"{name}.lock"}


def test_means_are_each_patients_own_and_nobodys_is_the_blank_picture() -> None:
    bags = make_bags([0, 1], [2, 3])
    pictures = np.arange(10, dtype=np.float32).reshape(5, 2)
    means = Features(pictures, np.array([7, 8], dtype=np.float32)).means(bags)
    np.testing.assert_allclose(means, [[1, 2], [6, 7], [7, 8]])
