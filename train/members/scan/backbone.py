"""The ResNet-like backbone of SimCLR and SCAN: small, because it dominates the cost of scoring."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock

from train.data.inputs import Normalise
from train.members.backbones import BackboneDimensions


class Backbone(nn.Module):
    """uint8 (N, 112, 112, 3) -> embedding (N, widths[-1]).

    ResNet's stem (stride 2, then max-pool) and torchvision's basic blocks (He et al. 2016), at half the width and
    half the depth of ResNet-18.
    """

    def __init__(self, dimensions: BackboneDimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        widths = dimensions.widths
        self.normalise = Normalise()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.blocks = nn.Sequential(
            BasicBlock(widths[0], widths[0]),
            *[_halving_block(narrow, wide) for narrow, wide in pairwise(widths)],
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(self.normalise(images))

    def embed(self, pixels: Tensor) -> Tensor:
        """The same from normalised pixels (N, 3, H, W), as they come out of augmentation."""
        if self.dimensions.shrink > 1:
            pixels = functional.avg_pool2d(pixels, self.dimensions.shrink)
        return self.blocks(self.stem(pixels)).mean(dim=(2, 3))  # type: ignore[no-any-return]


class Projection(nn.Module):
    """SimCLR's projection head, used only in training: (N, D) -> unit vectors (N, 128)."""

    def __init__(self, inputs: int, outputs: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(inplace=True), nn.Linear(inputs, outputs))

    def forward(self, embedding: Tensor) -> Tensor:
        return functional.normalize(self.layers(embedding), dim=1)


def _halving_block(narrow: int, wide: int) -> BasicBlock:
    shortcut = nn.Sequential(nn.Conv2d(narrow, wide, 1, stride=2, bias=False), nn.BatchNorm2d(wide))
    return BasicBlock(narrow, wide, stride=2, downsample=shortcut)
