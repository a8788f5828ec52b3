"""Plain implementation of scoring, for `make bench`: PyTorch eager, a DataLoader with one worker per CPU, float32.

The networks are those of a bundle. Their weights are read from its graphs, in which batch norm is folded into the
preceding convolution, and restored as a convolution and a batch norm, as in training.
"""

from itertools import pairwise

import numpy as np
import onnx
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from infer.bundle.load import Bundle
from infer.cohort.patient import Cohort
from infer.engine.fallback import Engine
from infer.members.features import cell_classes
from infer.pictures.listing import list_images
from infer.scoring.ensemble import calibrated, weighted
from tests.export.from_graphs import stored_weights
from train.data.inputs import MEAN, STD
from train.members.baseline import Baseline, BaselineDimensions
from train.members.imagenet import ImageNetDimensions, PictureExpert
from train.members.mixture_network import Encoder, Encoders, MoeDimensions
from train.members.scan.network import ScanDimensions, ScanNetwork


class Pictures(Dataset[tuple[Tensor, int]]):
    """A cohort's pictures, decoded, cropped and standardised one by one, with the index of their patient."""

    def __init__(self, cohort: Cohort, size: int) -> None:
        self._items = [
            (cohort.folder / patient.patient_id / name, number)
            for number, patient in enumerate(cohort.patients)
            for name in list_images(cohort.folder / patient.patient_id).names
        ]
        self._transform = transforms.Compose(
            [transforms.CenterCrop(size), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, patient = self._items[index]
        with Image.open(path) as image:
            return self._transform(image.convert("RGB")), patient


class PlainNetworks:
    """The networks that take pictures, in PyTorch."""

    def __init__(self, bundle: Bundle) -> None:
        self.baseline = Baseline(BaselineDimensions(log_count=True))
        self.scan = ScanNetwork(ScanDimensions())
        mixtures = bundle.manifest.members["moe"]["mixtures"]
        self.encoders = Encoders([Encoder(MoeDimensions().channels) for _ in range(mixtures)])
        self.expert = PictureExpert(ImageNetDimensions(112))
        for network, name, prefix in (
            (self.baseline, "baseline.onnx", "network."),
            (self.scan, "scan.onnx", ""),
            (self.encoders, "moe_encoder.onnx", ""),
            (self.expert, "imagenet_encoder.onnx", ""),
        ):
            load_weights(network, bundle.graphs[name], prefix)
            network.eval()
        # Here, pictures are already standardised by the DataLoader.
        self.baseline.normalise = nn.Identity()  # type: ignore[assignment]
        for encoder in self.encoders.each:
            encoder.normalise = nn.Identity()

    def score(self, pixels: Tensor, clinical: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, 3, H, W) and (N, 3) -> baseline (N,), classes (N, 20), maps, contribution (N,)."""
        baseline = self.baseline(pixels, clinical).softmax(1)[:, 1]
        classes = self.scan.heads[0](self.scan.backbone.embed(pixels)).softmax(1)
        whole = 255 * (pixels * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1))
        contribution = self.expert.linear(self.expert.embed((whole - 127) / 128)).squeeze(1)  # train.members.embedding
        return baseline, classes, self.encoders(pixels), contribution


def load_weights(network: nn.Module, graph: bytes, prefix: str) -> None:
    """Load the weights of a graph into the network from which it was exported."""
    model = onnx.load_from_string(graph)
    stored = stored_weights(model)
    biases = {
        node.input[1]: node.input[2] for node in model.graph.node if node.op_type == "Conv" and len(node.input) > 2
    }
    own = network.state_dict()
    with torch.no_grad():
        for name, value in own.items():
            if f"{prefix}{name}" in stored and stored[f"{prefix}{name}"].shape == value.shape:
                value.copy_(stored[f"{prefix}{name}"])
        modules = [(name, module) for name, module in network.named_modules() if not list(module.children())]
        for (name, module), (_, following) in pairwise(modules):
            if isinstance(module, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                following.running_mean.zero_()  # type: ignore[union-attr]
                following.running_var.fill_(1 - following.eps)  # type: ignore[union-attr]
                following.weight.fill_(1)
                following.bias.copy_(stored[biases[f"{prefix}{name}.weight"]])


def score_plainly(cohort: Cohort, bundle: Bundle, networks: PlainNetworks, heads: Engine, workers: int) -> list[float]:
    """Probabilities of all patients in the table's order; all of them must be scorable.

    Args:
        heads: engine for what is computed once per patient.
    """
    manifest = bundle.manifest
    patients = [patient.clinical for patient in cohort.patients]
    clinical = torch.from_numpy(np.stack([one.vector() for one in patients if one]))
    loader = DataLoader(Pictures(cohort, manifest.crop_size), batch_size=32, num_workers=workers)
    seen: list[list[Tensor]] = [[], [], [], [], []]
    with torch.inference_mode():
        for pixels, patient in loader:
            for part, values in zip(seen, (*networks.score(pixels, clinical[patient]), patient), strict=True):
                part.append(values)
    baseline, classes, maps, contribution, whose = (torch.cat(part).numpy() for part in seen)
    fused, confidence = cell_classes(classes, np.array(manifest.members["scan"]["class_fusion"]))
    of_pictures = {
        "baseline": {"probability": baseline},
        "scan": {"cell_class": fused, "confidence": confidence},
        "moe": {"maps": maps},
        "imagenet": {"contribution": contribution},
    }
    ensemble = manifest.ensemble
    found = []
    for number in range(len(patients)):
        sums = {member.name: member.begin() for member in heads.members}
        for member in heads.members:
            for row in np.flatnonzero(whose == number).tolist():
                member.add(sums[member.name], of_pictures[member.name], row)
        opinions = heads.score_patient(sums, clinical[number].numpy())
        members = {
            name: calibrated(np.array(opinion.probability), ensemble.calibration[name])
            for name, opinion in opinions.items()
        }
        found.append(float(weighted(members, ensemble)))
    return found
