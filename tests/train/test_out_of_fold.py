"""Cross-validation with a member that only records its training patients."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tests.train.bags import make_bags
from train.data.bags import Bags
from train.members.out_of_fold import Trainee, batches_of, class_weights, cross_predict

assigned = np.array([3, 1, 0, 2, 4, 0, 1, 2, 3, 4])


def bags() -> Bags:
    return make_bags([0, 1] * 5, [2] * 10)


class Remembering:
    """Trains by recording its patients; predicts their number and the predicted patient's index."""

    def __init__(self) -> None:
        self.trained: dict[str, set[int]] = {}
        self.predicted: list[str] = []

    def trainee(self) -> Trainee:
        return Trainee(self.train, self.predict)

    def train(self, patients: npt.NDArray[np.int64], path: Path) -> None:
        self.trained[path.stem] = set(patients.tolist())
        path.write_text(str(len(patients)))

    def predict(self, path: Path, patients: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
        assert not self.trained[path.stem] & set(patients.tolist())
        self.predicted.append(path.stem)
        return {"probability": patients / 10}


def test_nobody_is_predicted_by_a_network_that_saw_him(tmp_path: Path) -> None:
    member = Remembering()
    table = cross_predict(bags(), assigned, tmp_path / "member", member.trainee())
    for fold in range(5):
        assert member.trained[f"fold-{fold}"] == set(np.flatnonzero(assigned != fold).tolist())
    assert member.trained["full"] == set(range(10))
    assert member.predicted == [f"fold-{fold}" for fold in range(5)]
    assert table["patient_id"].tolist() == bags().patient_ids
    assert table["probability"].tolist() == [index / 10 for index in range(10)]
    assert table["fold"].tolist() == assigned.tolist()
    assert table["label"].tolist() == [0, 1] * 5


def test_what_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    first = cross_predict(bags(), assigned, tmp_path, Remembering().trainee())
    member = Remembering()
    again = cross_predict(bags(), assigned, tmp_path, member.trainee())
    assert member.trained == {}
    assert again.equals(first)
    (tmp_path / "fold-1.safetensors").unlink()  # only its predictions are needed
    assert cross_predict(bags(), assigned, tmp_path, member.trainee()).equals(first)
    assert member.trained == {}
    (tmp_path / "fold-2.safetensors").unlink()
    (tmp_path / "fold-2.csv").unlink()
    cross_predict(bags(), assigned, tmp_path, member.trainee())
    assert list(member.trained) == ["fold-2"]


def test_batches_cover_all_in_order() -> None:
    assert [batch.tolist() for batch in batches_of(np.arange(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_missed_malignancy_costs_double() -> None:
    assert class_weights(torch.device("cpu")).tolist() == [1, 2]
