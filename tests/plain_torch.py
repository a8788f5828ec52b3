"""Plain implementation of scoring, for `make bench`: PyTorch eager, a DataLoader with one worker per CPU, float32.

The networks are those of a bundle, as they were trained: with batch norm, which its graphs have folded into the
convolutions.
"""

import numpy as np
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
from tests.export.from_graphs import rebuild
from train.data.inputs import MEAN, STD


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
        rebuilt = rebuild(bundle)
        self.baseline, self.backbone = rebuilt.baseline, rebuilt.backbone
        self.cells, self.contribution = rebuilt.cells, rebuilt.imagenet.pictures
        self.baseline.normalise = nn.Identity()  # type: ignore[assignment]  # the DataLoader has standardised already

    def score(self, pixels: Tensor, clinical: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, 3, H, W) and (N, 3) -> baseline (N,), classes (N, 20), features (N, 1280), contribution (N,)."""
        baseline = self.baseline(pixels, clinical).softmax(1)[:, 1]
        whole = 255 * (pixels * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1))
        features = self.backbone.embed((whole - 127) / 128)  # train.members.embedding
        return baseline, self.cells(features)[0], features, self.contribution(features)


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
    baseline, classes, features, contribution, whose = (torch.cat(part).numpy() for part in seen)
    fused, confidence = cell_classes(classes, np.array(manifest.members["scan"]["class_fusion"]))
    of_pictures = {
        "baseline": {"probability": baseline},
        "scan": {"cell_class": fused, "confidence": confidence},
        "moe": {"features": features},
        "imagenet": {"contribution": contribution, "features": features},
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
