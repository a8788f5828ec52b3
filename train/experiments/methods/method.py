"""What a method is, and what it sees: principal components of all pictures, fitted on the training patients' pictures.

The features are not standardised first: those that almost never fire would weigh as much as the others. They are not
whitened either: all components are divided by one number, so that a network's inputs are of order one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from train.core.arrays import Floats, Indices, Labels
from train.core.threads import on_one_thread
from train.data.bags import Bags
from train.data.whose_pictures import NOBODY
from train.members.features import Features

COMPONENTS = 128
KEPT_VIEWS = 4  # one outer training set and its three inner ones

Vectors = npt.NDArray[np.float32]  # (n, C) components of pictures


@dataclass(frozen=True)
class View:
    """All pictures, and a blank one, in components that were fitted on some patients' pictures."""

    pictures: Vectors  # (N, C)
    blank: Vectors  # (1, C)
    offsets: Indices  # (P + 1,) as in Bags

    def of(self, patient: int) -> Vectors:
        """A patient's pictures; for NOBODY one blank picture."""
        if patient == NOBODY:
            return self.blank
        return self.pictures[self.offsets[patient] : self.offsets[patient + 1]]

    def of_all(self, patients: Indices) -> Vectors:
        """All pictures of some patients, patient after patient."""
        return np.concatenate([self.of(patient) for patient in patients])


# Whose pictures (A,), patients or NOBODY -> a score of each (A,), above 0 for malignant.
Judge = Callable[[Indices], Floats]
# View, training patients (T,), their labels (T,), random seed -> judge.
Fit = Callable[[View, Indices, Labels, int], Judge]


@dataclass(frozen=True)
class Method:
    """A way from a patient's pictures to a score, with nothing to choose."""

    name: str
    fit: Fit
    facts: Mapping[str, Any]  # every number of it
    from_torchmil: bool = False


class Views:
    """The views of the last few sets of training patients."""

    def __init__(self, bags: Bags, features: Features) -> None:
        self._bags, self._features = bags, features
        self._kept: dict[bytes, View] = {}

    def of(self, training: Indices) -> View:
        """The view fitted on these patients' pictures."""
        key = training.tobytes()
        if key not in self._kept:
            for oldest in list(self._kept)[: len(self._kept) + 1 - KEPT_VIEWS]:
                del self._kept[oldest]
            self._kept[key] = project(self._bags, self._features, training)
        return self._kept[key]


@on_one_thread
def project(bags: Bags, features: Features, training: Indices) -> View:
    """All pictures in the first COMPONENTS components of the training patients' pictures, or in all there are."""
    seen = np.isin(bags.patient_of_image(), training)
    known = features.pictures[seen].astype(np.float64)
    pca = PCA(min(COMPONENTS, *known.shape), svd_solver="covariance_eigh").fit(known)
    scale = np.sqrt(pca.explained_variance_.mean())

    def projected(pictures: npt.NDArray[np.float32]) -> Vectors:
        return np.asarray(pca.transform(pictures.astype(np.float64)) / scale, dtype=np.float32)

    return View(projected(features.pictures), projected(features.blank[None]), bags.offsets)
