"""Training and scoring of the mixture of experts around its network, on noise and clinical values that tell."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.bags import make_bags
from train.checkpoint import save_network
from train.crops import Bags
from train.moe import fit_clinical_side, predict, weighted_cross_entropy
from train.moe_network import MixtureOfExperts, MoeDimensions
from train.recipes import SMALL

CPU = torch.device("cpu")
EVERYBODY = np.arange(8)


@pytest.fixture
def bags() -> Bags:
    """The malignant are older; nothing else tells them."""
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
    assert np.abs(gates[0] - 0.5).max() > 0.3  # free, it turns to the expert that knows
    assert np.abs(gates[1] - 0.5).max() < 0.05
