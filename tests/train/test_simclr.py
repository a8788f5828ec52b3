"""NT-Xent compared with the paper's equation, written as loops."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.members.scan.simclr import nt_xent, shuffled_batches


def unit(number: int, seed: int, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(number, width, generator=generator, dtype=torch.float64), dim=1)


def slow_nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    """Chen et al. 2020, equation 1 and algorithm 1."""
    views = [*first.tolist(), *second.tolist()]
    number = len(first)

    def likeness(i: int, j: int) -> float:
        return math.exp(sum(a * b for a, b in zip(views[i], views[j], strict=True)) / temperature)

    total = 0.0
    for i in range(2 * number):
        partner = (i + number) % (2 * number)
        total -= math.log(likeness(i, partner) / sum(likeness(i, k) for k in range(2 * number) if k != i))
    return total / (2 * number)


def test_equals_the_slow_reference() -> None:
    for number, temperature in ((2, 0.5), (7, 0.2), (16, 1.0)):
        first, second = unit(number, 1), unit(number, 2)
        expected = slow_nt_xent(first, second, temperature)
        assert abs(nt_xent(first, second, temperature).item() - expected) < 1e-9


def test_order_of_pictures_and_of_views_does_not_matter() -> None:
    first, second = unit(9, 1), unit(9, 2)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    loss = nt_xent(first, second, 0.2)
    torch.testing.assert_close(nt_xent(first[order], second[order], 0.2), loss)
    torch.testing.assert_close(nt_xent(second, first, 0.2), loss)


def test_lower_where_pairs_agree() -> None:
    first = unit(8, 1)
    agreeing = functional.normalize(first + 0.1 * unit(8, 2), dim=1)
    assert nt_xent(first, agreeing, 0.2) < nt_xent(first, unit(8, 3), 0.2) - 0.5
    assert nt_xent(first, agreeing, 0.2) < nt_xent(first, agreeing.roll(1, 0), 0.2) - 0.5


def test_batches_hold_each_picture_once_and_are_full() -> None:
    crops = torch.arange(23)
    batches = list(shuffled_batches(crops, 5, np.random.default_rng(0), torch.device("cpu")))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    seen = torch.cat(batches).tolist()
    assert len(set(seen)) == 20
    assert seen != sorted(seen)
    few = list(shuffled_batches(crops[:3], 5, np.random.default_rng(0), torch.device("cpu")))
    assert sorted(torch.cat(few).tolist()) == [0, 1, 2]
