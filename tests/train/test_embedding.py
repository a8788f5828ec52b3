"""The frozen ImageNet network: it still recognises ImageNet classes, and its padding is TensorFlow's."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from train.members.embedding import (
    Convolution,
    EfficientNetLite0,
    load_embedding,
    weights_digest,
    weights_path,
)

PALACE, DAISY = 698, 985  # ImageNet classes


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return load_embedding()


@pytest.mark.parametrize(
    ("picture", "best", "likely"), [("china.jpg", PALACE, {442, 663, 483}), ("flower.jpg", DAISY, {947})]
)
def test_photographs_are_recognised(network: EfficientNetLite0, picture: str, best: int, likely: set[int]) -> None:
    """With the classifier from the weights file, which the network omits, on scikit-learn's sample photographs.

    A Chinese palace (similar classes: bell cote, monastery, castle) and a flower (mushroom). With layers in the wrong
    order, padding on the wrong side or another normalisation they would not be recognised.
    """
    photograph = Image.fromarray(load_sample_image(picture))
    side = min(photograph.size)
    left, top = (photograph.width - side) // 2, (photograph.height - side) // 2
    square = photograph.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    given = torch.load(weights_path(), weights_only=True)
    with torch.inference_mode():
        features = network(torch.from_numpy(np.array(square))[None])
        logits = features @ given["_fc.weight"].T + given["_fc.bias"]
    assert features.shape == (1, 1280)
    assert logits.argmax().item() == best
    assert likely <= set(logits[0].topk(5).indices.tolist())


def test_the_weights_are_the_published_ones(network: EfficientNetLite0) -> None:
    assert weights_digest().startswith("57934424")  # it is part of the file's name
    assert sum(value.numel() for value in network.parameters()) == 4_652_008 - 1_281_000  # without the classifier
    assert not network.training


@pytest.mark.parametrize(("size", "kernel", "stride"), [(6, 3, 2), (7, 3, 2), (6, 5, 2), (5, 3, 1), (6, 1, 1)])
def test_an_odd_pixel_of_padding_goes_to_the_right_and_to_the_bottom(size: int, kernel: int, stride: int) -> None:
    """Compared with TensorFlow's definition of SAME, one output pixel at a time."""
    torch.manual_seed(0)
    layer = Convolution(1, 1, kernel, stride=stride, active=False).eval()
    picture = torch.rand(size, size)
    with torch.inference_mode():
        found = layer(picture[None, None])[0, 0] * (1 + 1e-3) ** 0.5  # batch norm's epsilon
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    weight = layer.convolution.weight[0, 0]
    assert found.shape == (outputs, outputs)
    for row in range(outputs):
        for column in range(outputs):
            total = 0.0
            for y in range(kernel):
                for x in range(kernel):
                    at = (row * stride + y - before, column * stride + x - before)
                    if min(at) >= 0 and max(at) < size:
                        total += (weight[y, x] * picture[at]).item()
            assert found[row, column].item() == pytest.approx(total, abs=1e-5)
