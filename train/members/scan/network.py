"""SCAN's network: a backbone with linear heads, each giving class probabilities for every picture."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from train.data.bags import in_batches
from train.members.backbones import BackboneDimensions
from train.members.scan.backbone import Backbone


@dataclass(frozen=True)
class ScanDimensions:
    """Sizes needed to rebuild the network from a checkpoint."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    clusters: int = 20
    heads: int = 1
    shrink: int = 1  # as in BackboneDimensions


def scan_dimensions(backbone: BackboneDimensions, clusters: int, heads: int) -> ScanDimensions:
    """The dimensions of a network with a given backbone."""
    return ScanDimensions(backbone.widths, clusters, heads, backbone.shrink)


class ScanNetwork(nn.Module):
    """uint8 (N, 112, 112, 3) -> probabilities of the first head's classes (N, clusters), embedding (N, D)."""

    def __init__(self, dimensions: ScanDimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.backbone = Backbone(BackboneDimensions(dimensions.widths, dimensions.shrink))
        self.heads = nn.ModuleList(
            nn.Linear(dimensions.widths[-1], dimensions.clusters) for _ in range(dimensions.heads)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.backbone(images)
        return self.heads[0](embedding).softmax(1), embedding

    def head_logits(self, embedding: Tensor) -> Tensor:
        """Logits of all heads: (N, D) -> (heads, N, clusters)."""
        return torch.stack([head(embedding) for head in self.heads])

    def with_head(self, chosen: int) -> "ScanNetwork":
        """A copy with the same backbone and only one of the heads."""
        dimensions = self.dimensions
        single = ScanNetwork(replace(dimensions, heads=1))
        single.backbone.load_state_dict(self.backbone.state_dict())
        single.heads[0].load_state_dict(self.heads[chosen].state_dict())
        return single.eval()


def embed_all(backbone: Backbone, crops: Tensor, device: torch.device) -> Tensor:
    """Embeddings of all pictures, in order: (N, D) on the CPU. Sets the backbone to evaluation mode."""
    backbone.eval()
    with torch.inference_mode():
        return torch.cat([backbone(images.to(device)).cpu() for images in in_batches(crops)])
