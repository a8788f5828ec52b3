"""The full recipe is the report's, and changes to a recipe appear in its name."""

from dataclasses import asdict

import pytest

from train.members.recipes import CELLS, EXPERTS, FULL, SMALL, Recipe, adapted


def test_full_is_the_reports() -> None:
    assert (FULL.baseline.fit.learning_rate, FULL.moe.fit.learning_rate) == (1e-3, 1e-4)
    assert (FULL.baseline.batch_images, FULL.moe.batch_patients) == (128, 8)
    for fit in (FULL.baseline.fit, FULL.moe.fit):
        assert (fit.epochs, fit.decay, fit.weight_decay) == (200, 0.975, 5e-4)
    assert (FULL.scan.clusters, FULL.scan.fused) == (20, 15)
    assert (FULL.baseline.images_per_patient, FULL.moe.images_per_patient) == (0, 0)
    assert (FULL.moe.expert_loss, FULL.moe.clinical_rate, FULL.moe.log_count) == (0, 1, False)


def test_other_epochs_and_images() -> None:
    recipe = adapted(SMALL, 4, 9)
    assert recipe.name == "small, epochs 4, 9 images a patient"
    assert (recipe.baseline.fit.epochs, recipe.moe.fit.epochs) == (4, 4)
    assert (recipe.baseline.images_per_patient, recipe.moe.images_per_patient) == (9, 9)
    stages = (recipe.scan.pretext, recipe.scan.clustering, recipe.scan.self_labelling)
    assert [stage.epochs for stage in stages] == [4, 4, 3]


def test_what_stands_on_the_frozen_backbone_is_the_same_in_all_recipes() -> None:
    """It trains in seconds: no option makes it shorter."""
    for recipe in (FULL, SMALL, adapted(SMALL, 4, 9, ("turns",), "width-16")):
        assert (recipe.cells, recipe.experts) == (CELLS, EXPERTS)
    for name in ("neighbours", "clusters", "fused", "heads", "entropy_weight", "confidence", "trusted_share"):
        assert getattr(CELLS, name) == getattr(FULL.scan, name)
    for name in ("batch_patients", "images_per_patient", "expert_loss", "clinical_rate", "late_steps", "gate_pull"):
        assert getattr(EXPERTS, name) == getattr(SMALL.moe, name)


@pytest.mark.parametrize("recipe", [FULL, SMALL])
def test_asking_for_nothing_changes_nothing(recipe: Recipe) -> None:
    assert asdict(adapted(recipe, None, None)) == asdict(recipe)


def test_another_backbone() -> None:
    recipe = adapted(FULL, None, None, backbone="width-16-half-input")
    assert recipe.name == "full, backbone width-16-half-input"
    assert (recipe.scan.backbone.widths, recipe.scan.backbone.shrink) == ((16, 32, 64, 128), 2)
    assert recipe.moe == FULL.moe
