"""Training and scoring of the mixture with an encoder of its own, on noise pictures and informative clinical values."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tests.train.bags import make_bags
from train.core.arrays import Floats, Indices
from train.core.checkpoint import save_network
from train.core.curves import Curves
from train.core.fitting import FitRecipe, Job
from train.data.bags import Bags
from train.members.mixture import (
    fit_clinical_side,
    gate_loss,
    malignant_weight,
    norm_sample,
    predict,
    score,
    train_network,
    weighted_cross_entropy,
)
from train.members.mixture_network import MixtureOfExperts, MoeDimensions
from train.members.recipes import FULL, SMALL

CPU = torch.device("cpu")
EVERYBODY = np.arange(8)


@pytest.fixture
def bags() -> Bags:
    """Malignant patients are older; nothing else is informative."""
    made = make_bags([0, 1] * 4, [2, 3] * 4, size=112)
    made.clinical[:, 2] = [30, 70, 32, 75, 35, 72, 40, 80]
    return made


@pytest.fixture
def network(bags: Bags) -> MixtureOfExperts:
    torch.manual_seed(0)
    made = MixtureOfExperts(MoeDimensions((2, 2, 2, 2, 2, 4)))
    made.head.scale.fit(torch.from_numpy(bags.clinical))
    return made.eval()


def test_predict_equals_the_network_on_each_patient_alone(
    network: MixtureOfExperts, bags: Bags, tmp_path: Path
) -> None:
    save_network(tmp_path / "moe.safetensors", network, network.dimensions)
    asked = np.array([5, 2])
    found = predict(tmp_path / "moe.safetensors", bags, asked, CPU)
    for row, patient in enumerate(asked):
        images = bags.crops[bags.offsets[patient] : bags.offsets[patient + 1]]
        clinical = torch.from_numpy(bags.clinical[patient : patient + 1])
        with torch.inference_mode():
            alone = network(images, torch.zeros(len(images), dtype=torch.int64), clinical)
        for name in ("probability", "image", "clinical", "gate"):
            assert found[name][row] == pytest.approx(getattr(alone, name).item(), abs=1e-6)
        assert found["pictures_only"][row] == found["image"][row]


def test_the_late_fit_moves_the_clinical_side_alone(network: MixtureOfExperts, bags: Bags) -> None:
    before = {name: values.clone() for name, values in network.state_dict().items()}
    fit_clinical_side(network, bags, EVERYBODY, replace(SMALL.moe, late_steps=50), CPU)
    changed = {name for name, values in network.state_dict().items() if not torch.equal(values, before[name])}
    parts = ("clinical_expert.0", "clinical_expert.2", "gate.1")
    assert changed == {f"head.{part}.{kind}" for part in parts for kind in ("weight", "bias")}


def test_the_late_fit_learns_what_the_clinical_values_tell(network: MixtureOfExperts, bags: Bags) -> None:
    labels, maps = torch.from_numpy(bags.labels), torch.zeros(8, 4, 3, 3)
    fit_clinical_side(network, bags, EVERYBODY, replace(SMALL.moe, late_steps=200), CPU)
    with torch.inference_mode():
        clinical = network.head(maps, torch.from_numpy(bags.clinical)).clinical
    assert weighted_cross_entropy(clinical, labels) < 0.1
    assert ((clinical > 0.5).long() == labels).all()


def test_the_gate_is_drawn_to_one_half(network: MixtureOfExperts, bags: Bags, tmp_path: Path) -> None:
    gates = []
    for pull in (0.0, 100.0):
        fit_clinical_side(network, bags, EVERYBODY, replace(SMALL.moe, late_steps=200, gate_pull=pull), CPU)
        save_network(tmp_path / "moe.safetensors", network, network.dimensions)
        gates.append(predict(tmp_path / "moe.safetensors", bags, EVERYBODY, CPU)["gate"])
    assert np.abs(gates[0] - 0.5).max() > 0.3  # without regularisation it trusts the informative expert
    assert np.abs(gates[1] - 0.5).max() < 0.05


def test_what_is_scored_after_an_epoch_and_in_the_end_has_statistics_of_its_weights(bags: Bags, tmp_path: Path) -> None:
    """After each epoch and in the result, batch norm's means are those of the sample under the current weights."""
    recipe = replace(SMALL.moe, fit=FitRecipe(epochs=2, learning_rate=1e-2), images_per_patient=2, norm_images=12)
    job = Job("toy", tmp_path / "toy.safetensors", 0)
    sample = bags.crops[norm_sample(bags, EVERYBODY, 12, job)]
    first, of_first = "encoder.blocks.1.running_mean", []

    def scored(network: MixtureOfExperts, of: Indices) -> Floats:
        of_first.append((network.state_dict()[first].clone(), first_means(network)))
        return np.full(len(of), 0.6)

    def first_means(network: MixtureOfExperts) -> Tensor:
        with torch.inference_mode():
            convolved: Tensor = network.encoder.blocks[0](network.encoder.normalise(sample))
        return convolved.mean(dim=(0, 2, 3))

    trained = train_network(bags, EVERYBODY, recipe, job, CPU, Curves(bags.labels, np.arange(2), scored))
    of_first.append((trained.state_dict()[first], first_means(trained)))
    assert len(of_first) == 3
    for kept, expected in of_first:
        torch.testing.assert_close(kept, expected, atol=2e-4, rtol=0)
    assert not torch.allclose(of_first[0][1], of_first[1][1], atol=1e-3)  # the weights changed in between


def test_the_reports_recipe_keeps_running_averages(bags: Bags, tmp_path: Path) -> None:
    assert FULL.moe.norm_images == 0
    assert FULL.moe.gate_pull == 0
    assert len(norm_sample(bags, EVERYBODY, 0, Job("toy", tmp_path, 0))) == 0


def test_classes_weigh_alike_or_as_the_recipe_says() -> None:
    labels = np.array([1, 1, 1, 0])
    assert malignant_weight(FULL.moe, labels) == 2
    weight = malignant_weight(SMALL.moe, labels)
    assert weight == pytest.approx(1 / 3)
    # Three malignant patients at 1 and one reactive patient at .5, who has half of the total weight.
    loss = weighted_cross_entropy(torch.tensor([1.0, 1.0, 1.0, 0.5]), torch.from_numpy(labels), weight)
    assert loss.item() == pytest.approx(np.log(2) / 2, abs=1e-6)


def test_the_gates_loss_by_hand() -> None:
    assert gate_loss(torch.tensor([0.5, 0.9, 0.0]), 3.0).item() == pytest.approx(3 * (0.16 + 0.25) / 3)


def test_a_gate_that_is_held_stays_nearer_to_one_half(bags: Bags, tmp_path: Path) -> None:
    gates = []
    for pull in (0.0, 30.0):
        recipe = replace(SMALL.moe, fit=FitRecipe(epochs=12, learning_rate=1e-3, averaged_share=0.1), gate_pull=pull)
        trained = train_network(bags, EVERYBODY, recipe, Job("toy", tmp_path / f"{pull}.safetensors", 0), CPU)
        gates.append(score(trained, bags, EVERYBODY, CPU)["gate"])
    assert np.abs(gates[1] - 0.5).max() < 0.5 * np.abs(gates[0] - 0.5).max()


def test_pictures_that_tell_are_found_by_the_image_expert(bags: Bags, tmp_path: Path) -> None:
    """Malignant patients' pictures are darker; nothing else is informative."""
    alike = replace(bags, clinical=np.tile(np.array([1, 9, 60], np.float32), (8, 1)), crops=bags.crops.clone())
    for patient, (start, stop) in enumerate(alike.ranges()):
        alike.crops[start:stop] //= 3 if alike.labels[patient] else 1
    recipe = replace(SMALL.moe, fit=FitRecipe(epochs=8, learning_rate=3e-3), images_per_patient=2, norm_images=12)
    trained = train_network(alike, EVERYBODY, recipe, Job("toy", tmp_path / "toy.safetensors", 0), CPU)
    fit_clinical_side(trained, alike, EVERYBODY, replace(recipe, late_steps=50), CPU)
    found = score(trained, alike, EVERYBODY, CPU)
    assert roc_auc_score(bags.labels, found["image"]) == 1
    assert roc_auc_score(bags.labels, found["probability"]) == 1
    assert np.ptp(found["clinical"]) < 1e-6
