"""Networks are saved and loaded without change and without pickle."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from train.core.checkpoint import CheckpointError, load_dimensions, load_weights, save_network
from train.core.files import write_text
from train.members.backbones import BackboneDimensions
from train.members.baseline import Baseline, BaselineDimensions, load_baseline
from train.members.mixture import load_moe
from train.members.mixture_network import MixtureOfExperts, MoeDimensions
from train.members.scan.backbone import Backbone
from train.members.scan.network import ScanDimensions, ScanNetwork
from train.members.scan.stages import load_scan

IMAGES = torch.randint(0, 256, (3, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CLINICAL = torch.tensor([[0.0, 5.0, 40.0], [1.0, 9.0, 70.0], [1.0, 30.0, 80.0]])


def load_backbone(path: Path) -> Backbone:
    network = Backbone(BackboneDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def outputs(network: nn.Module) -> list[Tensor]:
    with torch.inference_mode():
        if isinstance(network, Baseline):
            return [network(IMAGES, CLINICAL)]
        if isinstance(network, MixtureOfExperts):
            return list(network(IMAGES, torch.arange(3), CLINICAL))
        if isinstance(network, ScanNetwork):
            return [*network(IMAGES), network.head_logits(network(IMAGES)[1])]
        return [network(IMAGES)]


@pytest.mark.parametrize(
    ("network", "load"),
    [
        (Baseline(BaselineDimensions((4, 5), (7, 6), log_count=True)), load_baseline),
        (MixtureOfExperts(MoeDimensions((2, 3, 4, 5, 6, 7), log_count=True)), load_moe),
        (ScanNetwork(ScanDimensions((4, 8), clusters=6, heads=3)), load_scan),
        (Backbone(BackboneDimensions((4, 6, 8))), load_backbone),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_round_trip(network: Any, load: Callable[[Path], Any], tmp_path: Path) -> None:
    network.train()
    if isinstance(network, Baseline):
        network.scale.fit(CLINICAL)
    elif isinstance(network, MixtureOfExperts):
        network.head.scale.fit(CLINICAL)
    else:
        network(IMAGES)  # changes the running statistics
    path = tmp_path / "network.safetensors"
    save_network(path, network, network.dimensions)
    loaded = load(path)
    assert loaded.dimensions == network.dimensions
    assert not loaded.training
    for found, wanted in zip(outputs(loaded), outputs(network.eval()), strict=True):
        assert torch.equal(found, wanted)
    assert [file.name for file in tmp_path.iterdir()] == ["network.safetensors"]


def test_a_checkpoint_is_a_safetensors_file_with_its_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    network = Backbone(BackboneDimensions((4, 6)))
    save_network(path, network, network.dimensions)
    tensors = load_file(path)
    assert set(tensors) == set(network.state_dict())
    assert b"cposix" not in path.read_bytes()
    assert load_dimensions(path) == asdict(network.dimensions)


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    with pytest.raises(CheckpointError, match=r"network\.safetensors"):
        load_dimensions(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"network\.safetensors: .*Train this part again"):
        load_dimensions(path)
    network = Backbone(BackboneDimensions((4, 6)))
    save_network(path, network, network.dimensions)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"network\.safetensors"):
        load_backbone(path)
    save_file({"a": torch.zeros(1)}, path)  # from another program: no dimensions
    with pytest.raises(CheckpointError, match=r"network\.safetensors"):
        load_dimensions(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    network = Backbone(BackboneDimensions((4, 6)))
    save_network(path, network, network.dimensions)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_network(path, network, {"not": "a dataclass"})
    assert path.read_bytes() == before
    write_text(tmp_path / "facts.json", "one")
    write_text(tmp_path / "facts.json", "two")
    assert (tmp_path / "facts.json").read_text() == "two"
    assert not (tmp_path / "facts.json.part").exists()
