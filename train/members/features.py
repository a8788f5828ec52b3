"""Features of every picture by the frozen backbone, computed once per run folder, and every patient's mean.

On a CPU the backbone runs as an ONNX graph on onnxruntime: several times as fast as torch, and what scoring uses.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor

from train.core.arrays import Floats
from train.core.files import locked, written_whole
from train.core.onnx_graph import as_onnx
from train.data.bags import Bags, in_batches
from train.data.whose_pictures import NOBODY
from train.members.embedding import FrozenBackbone, Magnification, load_backbone, weights_digest
from train.progress.report import steps

Embedder = Callable[[Tensor], npt.NDArray[np.float32]]
BATCH = 64  # pictures; their first feature maps take 100 MB


@dataclass(frozen=True)
class Features:
    """What the backbone sees in all pictures of a run, and in a blank one."""

    pictures: npt.NDArray[np.float32]  # (N, D)
    blank: npt.NDArray[np.float32]  # (D,)

    def means(self, bags: Bags) -> Floats:
        """Each patient's mean (P + 1, D); the last row, that of NOBODY, is the blank picture's."""
        return np.concatenate([bags.means(self.pictures), self.blank[None].astype(np.float64)])


def embed_pictures(bags: Bags, run: Path, device: torch.device, magnification: Magnification) -> Features:
    """All features, cached in RUN/features-WEIGHTS-CROP-SIZE.npy: (N + 1, D), a blank one last."""
    path = features_path(run, magnification)
    with locked(path.with_suffix(".lock")):  # another process may be computing them
        if not path.exists():  # the run folder's pictures never change (train/data/crops.py)
            embed = embedder(load_backbone(magnification), device)
            found = np.concatenate([embed(bags.crops), embed(bags.pictures(NOBODY))])
            with written_whole(path) as part, part.open("wb") as file:
                np.save(file, found)
    kept = np.load(path)
    return Features(kept[:-1], kept[-1])


def features_path(run: Path, magnification: Magnification) -> Path:
    """Where a run folder keeps them."""
    return run / f"features-{weights_digest()[:8]}-{magnification.crop}-{magnification.size}.npy"


def embedder(backbone: FrozenBackbone, device: torch.device) -> Embedder:
    """A function from pictures (N, H, W, 3) uint8 to their features (N, D)."""
    return _on_onnxruntime(backbone) if device.type == "cpu" else on_torch(backbone, device)


def on_torch(backbone: FrozenBackbone, device: torch.device) -> Embedder:
    """The same on torch, whatever the device: for a backbone that is used once."""
    backbone = backbone.to(device)

    def embed(images: Tensor) -> npt.NDArray[np.float32]:
        # No TF32: models fitted on these features are scored in float32.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            found = torch.cat([backbone(part.to(device)).cpu() for part in _batches(images)])
        return np.asarray(found.numpy(), dtype=np.float32)

    return embed


def _on_onnxruntime(backbone: FrozenBackbone) -> Embedder:
    side = backbone.magnification.crop
    example = torch.zeros((2, side, side, 3), dtype=torch.uint8)
    graph = as_onnx(backbone, {"images": example}, ["features"]).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def embed(images: Tensor) -> npt.NDArray[np.float32]:
        cropped = (backbone.cropped(part).numpy() for part in _batches(images))
        return np.concatenate([session.run(None, {"images": np.ascontiguousarray(part)})[0] for part in cropped])

    return embed


def _batches(images: Tensor) -> Iterator[Tensor]:
    return steps(in_batches(images, BATCH), "batch", number=-(-len(images) // BATCH))
