"""`make bench-train` compares equal work: in float32 the report's way and ours give the same training."""

import csv
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests import bench_train
from tests.train.bags import make_bags
from train.core.fitting import Job
from train.data.bags import Bags
from train.data.inputs import Normalise
from train.members.mixture import new_network, train_network
from train.members.mixture_network import MixtureOfExperts

pytestmark = pytest.mark.slow  # an experiment: nothing that ships depends on it

CPU = torch.device("cpu")
EPOCHS = 2  # the loss of the second epoch shows whether the steps of the first were the same
RECIPE = replace(bench_train.RECIPE, turns=False, fit=replace(bench_train.RECIPE.fit, epochs=EPOCHS, decay=1.0))


@pytest.fixture
def bags() -> Bags:
    """As many patients as a batch has, so that their order does not matter."""
    return make_bags([0, 1] * 4, [2, 3] * 4, size=112)


def network_without_dropout(bags: Bags, job: Job) -> MixtureOfExperts:
    made = new_network(bags, np.arange(len(bags)), RECIPE, job, CPU)
    made.head.gate[0] = torch.nn.Identity()
    return made


def test_both_ways_have_the_same_losses_in_float32(bags: Bags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.members.mixture.mixed_precision", lambda device: nullcontext())
    job = Job("moe", tmp_path / "moe.safetensors", 0)
    train_network(bags, np.arange(len(bags)), RECIPE, job, CPU, network=network_without_dropout(bags, job))
    with (tmp_path / "moe.history.csv").open(newline="") as file:
        ours = [float(row["loss"]) for row in csv.DictReader(file)]

    files = bench_train.write_tensors(bags, tmp_path / "tensors")
    loader = bench_train.report_loader(
        bags, files, bench_train.report_transform(turns=False), RECIPE.batch_patients, workers=1
    )
    network = network_without_dropout(bags, job)
    reports = [bench_train.report_epoch(network, loader, RECIPE, CPU) for _ in range(EPOCHS)]
    assert abs(ours[1] - ours[0]) > 1e-3  # otherwise the second epoch would prove nothing
    assert reports == pytest.approx(ours, abs=1e-4)


def test_the_reports_pictures_are_turned_at_random_and_channels_first(bags: Bags, tmp_path: Path) -> None:
    files = bench_train.write_tensors(bags, tmp_path / "tensors")
    stored = torch.load(files[0], weights_only=True)
    assert stored.is_contiguous()
    assert torch.equal((stored * 255).round().byte().permute(0, 2, 3, 1), bags.crops[:2])
    torch.manual_seed(0)
    turned, still = bench_train.report_transform(), bench_train.report_transform(turns=False)
    views = {turned(stored[0]).numpy().tobytes() for _ in range(200)}
    plain = still(stored[0])
    # The loss would not show a wrong scale, because of batch norm.
    assert torch.allclose(plain, Normalise()(bags.crops[:1])[0], atol=1e-5)
    expected = {
        torch.rot90(side, turn, (1, 2)).numpy().tobytes() for side in (plain, plain.flip(2)) for turn in range(4)
    }
    assert views == expected
    images, index = bench_train.PatientFiles(files, turned)[3]
    assert (images.is_contiguous(), images.dtype, images.shape, index) == (True, torch.float32, (3, 3, 112, 112), 3)


def test_an_epoch_that_leaves_pictures_out_is_not_timed(bags: Bags, tmp_path: Path) -> None:
    network = new_network(bags, np.arange(len(bags)), RECIPE, Job("moe", tmp_path / "moe.safetensors", 0), CPU)
    with pytest.raises(RuntimeError, match="an epoch used 3 of 20 pictures"):
        bench_train.timed(network, lambda net: net.encoder(bags.crops[:3]), 20)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_the_command_prints_both_speeds_and_their_ratio(tmp_path: Path) -> None:
    options = ["--patients", "12", "--images", "2", "--repeats", "1", "--device", "cpu"]
    done = CliRunner().invoke(bench_train.bench_train, [str(tmp_path / "bench"), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    facts = dict(line.split("\t") for line in done.stdout.splitlines())
    assert (facts["device"], facts["pictures an epoch"]) == ("cpu", "24")
    ratio = float(facts["pictures/s, ours"]) / float(facts["pictures/s, the report's way"])
    assert float(facts["ratio"]) == pytest.approx(ratio, abs=0.02, rel=0.02)
