"""What each stage of `train all` costs beforehand, in seconds on the machine below.

Measured on one core of an x86-64 with AVX-512 (two cores, OMP_NUM_THREADS=1), 130 patients, 10,622 pictures of 128 x
128, recipe small, seed 0. Only their relation to each other counts: train/progress/estimate.py measures the machine it
runs on. A member that is not named here costs MEMBER.
"""

from collections.abc import Callable
from dataclasses import dataclass

from train.members.recipes import Recipe

MEMBER = 30.0
FOLD_TRAININGS = 5  # six trainings, of which five leave out a fifth of the patients: 5 x 4/5 + 1 times one of all


@dataclass(frozen=True)
class Size:
    """Of a cohort."""

    patients: int
    pictures: int


def crops(size: Size) -> float:
    """Decoding all pictures."""
    return 0.0006 * size.pictures


def features(size: Size) -> float:
    """The backbone on all pictures."""
    return 0.010 * size.pictures


def baseline(size: Size, recipe: Recipe) -> float:
    """Epochs of pictures, trained on and held out, and what an epoch costs besides; then each patient is scored."""
    of = recipe.baseline
    shown = min(of.images_per_patient or size.pictures, size.pictures / max(size.patients, 1)) * size.patients
    epoch = 0.0019 * FOLD_TRAININGS * shown + 0.0005 * shown + 0.5 * (FOLD_TRAININGS + 1)
    return epoch * of.fit.epochs + 0.0006 * size.pictures


def cells(size: Size, recipe: Recipe) -> float:
    """Epochs of pictures, and what does not depend on their number."""
    epochs = recipe.cells.clustering.epochs + recipe.cells.self_labelling.epochs
    return 3.5 + 1.2e-5 * FOLD_TRAININGS * size.pictures * epochs


def moe(size: Size, recipe: Recipe) -> float:
    """Steps of the optimiser, each of a few patients: of the mixtures, then of clinical expert and gate."""
    of = recipe.experts
    steps = FOLD_TRAININGS * of.fit.epochs * size.patients / of.batch_patients
    return 0.0017 * of.seeds * (steps + 2 * (FOLD_TRAININGS + 1) * of.late_steps)


def imagenet(size: Size, recipe: Recipe) -> float:
    """Linear models of patients."""
    del recipe
    return 1.0 + 0.008 * size.patients


def ensemble(size: Size) -> float:
    """Weights, calibration, intervals."""
    return 1.0 + 0.023 * size.patients


def page(size: Size) -> float:
    """Intervals, plots."""
    return 4.0 + 0.02 * size.patients


MEMBERS: dict[str, Callable[[Size, Recipe], float]] = {
    "baseline": baseline,
    "scan": cells,
    "moe": moe,
    "imagenet": imagenet,
}
ON_DEVICE = ("baseline",)  # members whose networks are trained on --device
