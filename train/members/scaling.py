"""How a recipe follows the data: fewer clusters for few pictures, more epochs for few patients.

On 130 patients with 10,622 pictures every number is the recipe's own, in every fold: the number of patients and pictures
of the whole cohort decides. Changed numbers are part of the run's recipe, so that options.json, the bundle's manifest and
the card tell them.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from train.core.fitting import FitRecipe
from train.data.folds import FOLDS
from train.members.recipes import CellRecipe, Recipe

PICTURES_A_CLUSTER = 16  # at least, in the whole cohort
BATCHES_AN_EPOCH = 8  # of cell classes, at least
FEWEST_IN_A_BATCH = 32  # pictures: SCAN's entropy is that of a batch, and needs several pictures a class
BASELINE_STEPS = 600  # of the optimiser, at least, in a training on four of five folds
EXPERTS_STEPS = 400


def scaled(recipe: Recipe, pictures: Sequence[int], *, epochs_given: bool) -> Recipe:
    """The recipe for a cohort; if a number changes, so does its name.

    Clusters, neighbours and batches of cell classes follow the pictures whatever the recipe. Epochs of the baseline and
    the mixture follow the patients in the recipe `small` alone, and not if they were given.

    Args:
        recipe: the recipe to change.
        pictures: (P,) number of each patient's pictures.
        epochs_given: whether the number of epochs was asked for.
    """
    total, patients = sum(pictures), len(pictures)
    fitted = replace(recipe, cells=_cells(recipe.cells, total))
    if recipe.name.startswith("small") and not epochs_given:
        shown = recipe.baseline.images_per_patient or max(pictures)
        seen = sum(min(number, shown) for number in pictures)
        experts, baseline = recipe.experts, recipe.baseline
        fitted = replace(
            fitted,
            baseline=replace(baseline, fit=_longer(baseline.fit, seen / baseline.batch_images, BASELINE_STEPS)),
            experts=replace(experts, fit=_longer(experts.fit, patients / experts.batch_patients, EXPERTS_STEPS)),
        )
    if fitted == recipe:
        return recipe
    return replace(fitted, name=f"{recipe.name}, scaled to {patients} patients with {total} pictures")


def _cells(recipe: CellRecipe, pictures: int) -> CellRecipe:
    clusters = min(recipe.clusters, max(2, pictures // PICTURES_A_CLUSTER))
    batch = min(recipe.batch_images, max(FEWEST_IN_A_BATCH, pictures * (FOLDS - 1) // FOLDS // BATCHES_AN_EPOCH))
    return replace(
        recipe,
        clusters=clusters,
        fused=max(2, round(recipe.fused * clusters / recipe.clusters)),
        neighbours=min(recipe.neighbours, max(2, pictures // clusters // 2)),
        batch_images=batch,
    )


def _longer(recipe: FitRecipe, batches: float, steps: int) -> FitRecipe:
    """With so many epochs that a training on four of five folds takes at least so many steps.

    The learning rate falls to the same share of its first value in the end.

    Args:
        recipe: of the training.
        batches: how many batches the whole cohort is in an epoch.
        steps: at least so many.
    """
    epochs = max(recipe.epochs, ceil(steps / ceil(batches * (FOLDS - 1) / FOLDS)))
    if epochs == recipe.epochs:
        return recipe
    return replace(recipe, epochs=epochs, decay=recipe.decay ** (recipe.epochs / epochs))
