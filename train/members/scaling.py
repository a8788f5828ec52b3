"""How a recipe follows the data: fewer clusters for few pictures, smaller batches or more epochs for few patients.

On 130 patients with 10,622 pictures every number is the recipe's own, in every fold: the patients and pictures of the
whole cohort decide. Changed numbers are part of the run's recipe, so that options.json, the bundle's manifest and the
card tell them.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from train.core.fitting import FitRecipe
from train.data.folds import FOLDS
from train.members.recipes import BaselineRecipe, CellRecipe, Recipe

PICTURES_A_CLUSTER = 16  # at least, in the whole cohort
BATCHES_AN_EPOCH = 8  # of cell classes, at least
FEWEST_IN_A_BATCH = 32  # pictures: SCAN's entropy is that of a batch, and needs several pictures a class
FEWEST_OF_BASELINE = 16  # pictures in a batch of the baseline
BASELINE_STEPS = 600  # of the optimiser, at least, in a training on four of five folds
EXPERTS_STEPS = 400


def scaled(recipe: Recipe, pictures: Sequence[int], *, given: bool) -> Recipe:
    """The recipe for a cohort; if a number changes, so does its name.

    Clusters, neighbours and batches of cell classes follow the pictures whatever the recipe. In the recipe `small` the
    baseline and the mixture take at least two thirds of the steps that they take on the public cohort: the baseline by
    smaller batches, which cost nothing, and the mixture, whose batches are of 8 patients, by more epochs.

    Args:
        recipe: the recipe to change.
        pictures: (P,) number of each patient's pictures.
        given: whether epochs or pictures a patient were asked for; then the networks are trained as they say.
    """
    total, patients = sum(pictures), len(pictures)
    fitted = replace(recipe, cells=_cells(recipe.cells, total))
    if recipe.name.startswith("small") and not given:
        experts = recipe.experts
        fitted = replace(
            fitted,
            baseline=_baseline(recipe.baseline, pictures),
            experts=replace(experts, fit=_longer(experts.fit, patients / experts.batch_patients, EXPERTS_STEPS)),
        )
    if fitted == recipe:
        return recipe
    return replace(fitted, name=f"{recipe.name}, scaled to {patients} patients with {total} pictures")


def _baseline(recipe: BaselineRecipe, pictures: Sequence[int]) -> BaselineRecipe:
    shown = recipe.images_per_patient or max(pictures)
    seen = sum(min(number, shown) for number in pictures)
    fitting = seen * (FOLDS - 1) // FOLDS // ceil(BASELINE_STEPS / recipe.fit.epochs)
    batch = min(recipe.batch_images, max(FEWEST_OF_BASELINE, fitting))
    return replace(recipe, batch_images=batch, fit=_longer(recipe.fit, seen / batch, BASELINE_STEPS))


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
