"""Nearest neighbours compared with brute force, and how often they come from the cell's own patient."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from train.members.scan.neighbours import nearest, own_patient_share


def brute_force(
    embedding: npt.NDArray[np.float64], count: int, patient: npt.NDArray[np.int64] | None
) -> list[set[int]]:
    """The `count` other pictures with the largest cosine, from other patients if patients are given."""
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    found = []
    for index, row in enumerate(unit):
        others = [k for k in range(len(unit)) if k != index and (patient is None or patient[k] != patient[index])]
        found.append(set(sorted(others, key=lambda k: -float(unit[k] @ row))[:count]))
    return found


@pytest.mark.parametrize("other_patients_only", [False, True])
def test_equals_brute_force(other_patients_only: bool) -> None:
    embedding = np.random.default_rng(0).normal(size=(60, 5))
    patient = np.repeat(np.arange(6), 10) if other_patients_only else None
    found = nearest(torch.from_numpy(embedding), 4, None if patient is None else torch.from_numpy(patient))
    assert found.shape == (60, 4)
    assert [set(row) for row in found.tolist()] == brute_force(embedding, 4, patient)


def test_nearest_comes_first_and_length_does_not_matter() -> None:
    embedding = torch.tensor([[1.0, 0.0], [100.0, 10.0], [0.1, 0.1], [0.0, 1.0]])
    assert nearest(embedding, 2)[0].tolist() == [1, 2]


def test_never_itself_nor_its_patient_beyond_the_first_block_of_rows() -> None:
    """Rows are processed in blocks of 1,024; a patient's pictures are each other's nearest neighbours."""
    generator = torch.Generator().manual_seed(0)
    patient = torch.arange(2100) // 3
    embedding = torch.randn(700, 8, generator=generator)[patient] + 0.01 * torch.randn(2100, 8, generator=generator)
    found = nearest(embedding, 5)
    assert not (found == torch.arange(2100)[:, None]).any()
    assert (patient[found[:, :2]] == patient[:, None]).all()
    apart = nearest(embedding, 5, patient)
    assert not (patient[apart] == patient[:, None]).any()


def test_own_patient_share_by_hand() -> None:
    patient = np.array([0, 0, 0, 1, 1])
    neighbours = torch.tensor([[1, 3], [3, 4], [0, 1], [4, 0], [1, 2]])  # own: 1, 0, 2, 1, 0 of 10
    share, chance = own_patient_share(neighbours, patient)
    assert share == pytest.approx(0.4)
    # 3 pictures each have 2 of 4 others of their own patient, 2 have 1 of 4.
    assert chance == pytest.approx((3 * 2 / 4 + 2 * 1 / 4) / 5)


def test_random_neighbours_come_by_chance() -> None:
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(8), rng.integers(10, 40, 8))
    share, chance = own_patient_share(nearest(torch.from_numpy(rng.normal(size=(len(patient), 50))), 10), patient)
    assert share == pytest.approx(chance, abs=0.03)
