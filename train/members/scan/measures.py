"""Quality measures of a SCAN stage: class sizes, whether classes follow the patient, agreement with other classes.

Agreement is the adjusted mutual information (Vinh et al. 2010): 0 by chance, 1 for identical classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor
from torch.nn import functional

from train.core.arrays import Classes
from train.core.fitting import TrainingError
from train.members.scan.neighbours import nearest, own_patient_share


class Collapse(TrainingError):
    """A stage that lost a class, or put most pictures into a single class."""


@dataclass(frozen=True)
class StageMeasures:
    """A row of the stage table; shares and agreements are between 0 and 1."""

    stage: str
    classes: int  # number of non-empty classes
    smallest: int  # pictures in the smallest class
    largest: int  # pictures in the largest class
    entropy: float  # of the class shares, in nats
    neighbours_own_patient: float  # share of nearest neighbours from the picture's own patient
    neighbours_own_patient_chance: float
    class_own_patient: float  # probability that another picture of the same class is from the same patient
    class_own_patient_chance: float
    agreement_with_patients: float
    agreement_with_kmeans: float  # k-means on the same embedding with the same number of classes
    agreement_with_reference: float | None  # with reference classes, if given
    kmeans_agreement_with_reference: float | None


def measure_stage(
    stage: str,
    embedding: Tensor,
    classes: Classes | int,
    patient: Classes,
    neighbours: int,
    reference: Classes | None,
) -> StageMeasures:
    """Measure one stage.

    Args:
        stage: name of the stage.
        embedding: (N, D).
        classes: (N,) class of each picture; or, for a stage without classes, the number of k-means clusters to use.
        patient: (N,) patient of each picture.
        neighbours: number of nearest neighbours to consider.
        reference: (N,) reference classes from another source.
    """
    control = kmeans(embedding, classes if isinstance(classes, int) else len(np.unique(classes)))
    found = control if isinstance(classes, int) else classes
    sizes = np.bincount(found)
    sizes = sizes[sizes > 0]
    shares = sizes / sizes.sum()
    own, chance = own_patient_share(nearest(embedding, neighbours), patient)
    with_reference, control_with_reference = (
        (None, None) if reference is None else (agreement(found, reference), agreement(control, reference))
    )
    return StageMeasures(
        stage=stage,
        classes=len(sizes),
        smallest=int(sizes.min()),
        largest=int(sizes.max()),
        entropy=float(-(shares * np.log(shares)).sum()),
        neighbours_own_patient=own,
        neighbours_own_patient_chance=chance,
        class_own_patient=same_patient_share(found, patient),
        class_own_patient_chance=chance,
        agreement_with_patients=agreement(found, patient),
        agreement_with_kmeans=agreement(found, control),
        agreement_with_reference=with_reference,
        kmeans_agreement_with_reference=control_with_reference,
    )


def agreement(one: Classes, other: Classes) -> float:
    """Adjusted mutual information of two classifications of the same pictures: (N,), (N,)."""
    return float(adjusted_mutual_info_score(one, other))


def stability(runs: Sequence[Classes]) -> float:
    """Mean agreement between all pairs of classifications."""
    return float(np.mean([agreement(one, other) for one, other in combinations(runs, 2)]))


def kmeans(embedding: Tensor, classes: int) -> Classes:
    """k-means on unit vectors, deterministic: (N, D) -> (N,)."""
    unit = functional.normalize(embedding, dim=1).numpy()
    found: Classes = KMeans(classes, n_init=3, random_state=0).fit_predict(unit).astype(np.int64)
    return found


def same_patient_share(classes: Classes, patient: Classes) -> float:
    """Share of pairs of different pictures of the same class that come from the same patient: (N,), (N,) -> scalar."""
    table = np.zeros((classes.max() + 1, patient.max() + 1), dtype=np.int64)
    np.add.at(table, (classes, patient), 1)
    sizes = table.sum(axis=1)
    pairs = (sizes * (sizes - 1)).sum()
    return float((table * (table - 1)).sum() / pairs) if pairs else 0.0


def check_classes(sizes: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_], largest: float) -> None:
    """Check that no wanted class is empty and that no class has taken over.

    Args:
        sizes: (C,) number of pictures in each class.
        wanted: (C,) whether a class must have pictures.
        largest: largest allowed share of all pictures in one class.

    Raises:
        Collapse: the check failed; the message names the class.
    """
    lost = np.flatnonzero(wanted & (sizes == 0))
    if len(lost):
        raise Collapse(f"{len(lost)} of {wanted.sum()} classes have no pictures left, the first is class {lost[0]}")
    share = sizes.max() / sizes.sum()
    if share > largest:
        raise Collapse(f"class {sizes.argmax()} contains {share:.0%} of the pictures")


def class_sizes(probabilities: Tensor) -> npt.NDArray[np.int64]:
    """Number of pictures in each class: (..., N, C) probabilities -> (..., C)."""
    chosen = torch.nn.functional.one_hot(probabilities.argmax(-1), probabilities.shape[-1])
    return chosen.sum(-2).cpu().numpy()
