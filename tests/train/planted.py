"""Features of pictures with kinds of cells planted in them, for tests of what stands on the frozen backbone."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tests.train.bags import make_bags
from train.core.arrays import Classes
from train.data.bags import Bags
from train.members.features import Features

KINDS = 6
MALIGNANT, REACTIVE = (0.5, 0.5, 0.5, 2.0, 2.0, 2.0), (2.0, 2.0, 2.0, 0.5, 0.5, 0.5)  # Dirichlet parameters
WIDTH = 64  # features: as many as the backbone's would take a second to project


@dataclass(frozen=True)
class Planted:
    """Patients with different mixtures of kinds, and the features of their pictures: Gaussians around one centre each.

    Clinical values are random.
    """

    bags: Bags
    seen: Features
    kinds: Classes  # (N,)

    @property
    def owner(self) -> Classes:
        return self.bags.patient_of_image()

    def changed(self, pictures: npt.NDArray[np.float32]) -> "Planted":
        """With other features."""
        return replace(self, seen=replace(self.seen, pictures=pictures))


def planted(patients: int = 24, pictures: int = 20, *, seed: int = 0, width: int = WIDTH) -> Planted:
    """Patients p0 reactive, p1 malignant, ...; the centres do not depend on the seed; a blank picture is of kind 0."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(KINDS, width))
    labels = [number % 2 for number in range(patients)]
    bags = make_bags(labels, [pictures] * patients, seed=seed)
    drawn = [rng.choice(KINDS, pictures, p=rng.dirichlet(MALIGNANT if label else REACTIVE)) for label in labels]
    kinds = np.concatenate(drawn)
    features = centres[kinds] + rng.normal(size=(len(kinds), width))
    return Planted(bags, Features(features.astype(np.float32), centres[0].astype(np.float32)), kinds)
