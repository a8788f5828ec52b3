"""Recomputed batch norm statistics compared with a slow reference: the inputs over all pictures, layer by layer."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.train.bags import make_bags
from train.core.batch_norm import recalibrate
from train.core.fitting import Job
from train.members.mixture import NORM_BATCH, norm_sample


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))


def pictures(number: int, seed: int) -> Tensor:
    return torch.rand(number, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


def test_statistics_are_those_of_the_pictures_under_the_present_weights() -> None:
    net, batches = network(), [pictures(8, seed) for seed in range(3)]
    net.train()
    for _ in range(5):
        net(5 + 3 * pictures(8, 9))  # running averages of other pictures, which must be discarded
    weights = {name: value.clone() for name, value in net.named_parameters()}
    recalibrate(net, batches)
    inputs = [net[0](batch) for batch in batches]  # (8, 4, 7, 7) each
    for statistic, expected in (
        (net[1].running_mean, [value.mean(dim=(0, 2, 3)) for value in inputs]),
        (net[1].running_var, [value.var(dim=(0, 2, 3)) for value in inputs]),
    ):
        assert isinstance(statistic, Tensor)
        torch.testing.assert_close(statistic, torch.stack(expected).mean(0))
    assert all(torch.equal(value, weights[name]) for name, value in net.named_parameters())
    assert net[1].momentum == net[4].momentum == 0.1  # later training is not affected
    assert not net.training


def test_the_last_layers_statistics_are_those_of_one_batch_seen_alone() -> None:
    """A batch normalised with its own statistics has an output with mean 0 and variance 1."""
    net, batch = network(), pictures(64, 1)
    recalibrate(net, [batch])
    with torch.inference_mode():
        output = net(batch)
    torch.testing.assert_close(output.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(output.var(dim=(0, 2, 3)), torch.ones(2), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("number", "expected"), [(600, 512), (3 * NORM_BATCH, 512), (90, 90), (0, 0)])
def test_the_sample_is_of_whole_batches_from_all_of_the_training_patients(number: int, expected: int) -> None:
    # The last patient has too few pictures for a sample of 768, so it is cut to full batches.
    bags = make_bags([0, 1] * 6, [100] * 11 + [1])
    patients = np.arange(1, 12)
    sample = norm_sample(bags, patients, number, Job("toy", None, 0)).numpy()
    assert len(sample) == len(set(sample)) == expected
    owner = bags.patient_of_image()[sample]
    if number:
        assert set(owner) <= set(patients)
        counts = np.bincount(owner, minlength=12)[1:11]
        assert counts.max() <= -(-number // 11)
        assert not np.array_equal(owner, np.sort(owner))
    again = norm_sample(bags, patients, number, Job("toy", None, 0)).numpy()
    assert (again == sample).all()
