"""How a recipe follows the data: as it is on the public cohort, fewer clusters and more epochs on small ones."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.synthetic import make_patients, write_cohort
from tests.train_fixtures import DATE, train
from train.members.recipes import FULL, RECIPES, SMALL, Recipe, adapted
from train.members.scaling import BASELINE_STEPS, EXPERTS_STEPS, PICTURES_A_CLUSTER, scaled

PUBLIC = [82] * 92 + [81] * 38  # 130 patients, 10,622 pictures


def steps(recipe: Recipe, pictures: list[int]) -> tuple[int, int]:
    """Of the baseline and of the mixture, in a training on four of five folds, counted batch by batch."""
    shown = recipe.baseline.images_per_patient
    chosen = sum(min(number, shown) for number in pictures) * 4 // 5
    baseline = len(range(0, chosen, recipe.baseline.batch_images)) * recipe.baseline.fit.epochs
    return baseline, len(range(0, len(pictures) * 4 // 5, recipe.experts.batch_patients)) * recipe.experts.fit.epochs


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("given", [True, False])
def test_on_the_public_cohort_every_number_is_the_recipes_own(recipe: Recipe, given: bool) -> None:
    assert sum(PUBLIC) == 10_622
    assert scaled(recipe, PUBLIC, given=given) is recipe


@pytest.mark.parametrize("patients", [20, 32, 40, 60, 80])
def test_small_cohorts_have_enough_steps(patients: int) -> None:
    pictures = [72] * patients
    recipe = scaled(SMALL, pictures, given=False)
    assert recipe.name == f"small, scaled to {patients} patients with {72 * patients} pictures"
    assert recipe.baseline.fit.epochs == SMALL.baseline.fit.epochs  # as many pictures are shown as before
    assert 24 <= recipe.baseline.batch_images <= 128
    for found, least in zip(steps(recipe, pictures), (BASELINE_STEPS, EXPERTS_STEPS), strict=True):
        assert least <= found < 1.2 * least + 60
    for now, before in ((recipe.baseline.fit, SMALL.baseline.fit), (recipe.experts.fit, SMALL.experts.fit)):
        assert now.decay**now.epochs == pytest.approx(before.decay**before.epochs)
        assert replace(now, epochs=before.epochs, decay=before.decay) == before


def test_where_batches_cannot_be_smaller_there_are_more_epochs() -> None:
    pictures = [10] * 16
    recipe = scaled(SMALL, pictures, given=False)
    assert recipe.baseline.batch_images == 16
    assert recipe.baseline.fit.epochs == 75  # of 8 batches
    assert steps(recipe, pictures)[0] == BASELINE_STEPS


def test_epochs_stay_as_they_were_given_and_in_the_full_recipe() -> None:
    pictures = [72] * 40
    given = adapted(SMALL, 4, 8)
    assert scaled(given, pictures, given=True) is given
    assert scaled(FULL, pictures, given=False) is FULL


@pytest.mark.parametrize("total", [24, 200, 256, 330, 844, 2294])
def test_clusters_neighbours_and_batches_follow_the_pictures(total: int) -> None:
    cells = scaled(FULL, [total // 8] * 8, given=True).cells
    total = total // 8 * 8
    assert 2 <= cells.fused <= cells.clusters <= 20
    assert cells.clusters == 2 or total / cells.clusters >= PICTURES_A_CLUSTER
    assert cells.clusters == 20 or total / (cells.clusters + 1) < PICTURES_A_CLUSTER
    assert cells.fused == pytest.approx(0.75 * cells.clusters, abs=0.5)
    assert 20 - cells.clusters >= 15 - cells.fused  # export numbers the classes that are missing without a gap
    assert cells.neighbours <= total / cells.clusters / 2
    assert cells.batch_images == 256 or math.floor(0.8 * total / cells.batch_images) >= 8 or cells.batch_images == 32


def test_a_run_folder_says_what_it_was_trained_with(tmp_path: Path) -> None:
    patients = make_patients(10, seed=4, images=(4, 4), malignant_share=0.5)
    write_cohort(tmp_path / "cohort", patients, seed=4, size=112)
    for run, given, epochs in (("a", (), 300), ("b", ("--epochs", "3"), 3)):
        assert (
            train("crops", tmp_path / "cohort", tmp_path / run, *DATE, "--recipe", "small", *given, small=SMALL).code
            == 0
        )
        recipe = json.loads((tmp_path / run / "options.json").read_text())["recipe"]
        assert recipe["baseline"]["fit"]["epochs"] == epochs
        assert recipe["cells"]["clusters"] == 2
        assert recipe["name"].endswith(", scaled to 10 patients with 40 pictures")
        assert json.loads((tmp_path / run / "calls.jsonl").read_text())["recipe"] == recipe["name"]
