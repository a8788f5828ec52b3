"""The methods one by one: against slow loops, and on drawn patients whose pictures tell the label or do not."""

import sys
from collections.abc import Mapping
from types import ModuleType
from unittest.mock import patch

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.svm import SVC
from torch import Tensor, nn

from train.core.arrays import Floats, Indices
from train.experiments.methods import networks, pooling
from train.experiments.methods.compare import METHODS
from train.experiments.methods.method import Vectors, View
from train.experiments.methods.networks import BagNetwork, NetworkRecipe, SmoothHinge, from_torchmil, trained

OURS = [name for name, method in METHODS.items() if not method.from_torchmil]
PATIENTS, WIDTH = 120, 20
LABELS = np.array([0, 1, 1] * (PATIENTS // 3))
TRAINING, HELD_OUT = np.arange(40), np.arange(40, PATIENTS)


def drawn(worth: float, least: int = 6) -> View:
    """Patients with so many pictures, or up to twice as many; in malignant ones half of them are of another kind."""
    rng = np.random.default_rng(0)
    counts = rng.integers(least, 2 * least + 1, PATIENTS)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    pictures = rng.normal(size=(offsets[-1], WIDTH))
    other_kind = np.repeat(LABELS, counts) * (rng.random(offsets[-1]) < 0.5)
    pictures[:, :4] += worth * other_kind[:, None]
    return View(pictures.astype(np.float32), np.zeros((1, WIDTH), np.float32), offsets)


@pytest.mark.parametrize("name", OURS)
def test_what_pictures_tell_is_found_and_nothing_else(name: str) -> None:
    for worth, least, most in ((4.0, 0.95, 1.0), (0.0, 0.3, 0.7)):
        judge = METHODS[name].fit(drawn(worth, 30), TRAINING, LABELS[TRAINING], 0)
        scores = judge(HELD_OUT)
        assert least <= roc_auc_score(LABELS[HELD_OUT], scores) <= most
        assert judge(np.array([-1])).shape == (1,)
        if worth:
            assert np.mean((scores > 0) == LABELS[HELD_OUT]) > 0.85


@pytest.mark.parametrize("name", OURS)
def test_a_fit_is_the_same_again_and_does_not_see_who_is_judged(name: str) -> None:
    view = drawn(1.0)
    other = view.pictures.copy()
    other[view.offsets[40] :] += 5
    changed = View(other, view.blank, view.offsets)
    found = [
        METHODS[name].fit(one, TRAINING, LABELS[TRAINING], 3)(TRAINING) for one in (view, view, changed)
    ]  # fmt: skip
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_prototypes_are_shares_of_the_nearest() -> None:
    view = drawn(2.0)
    centres = KMeans(16, n_init=3, random_state=5).fit(view.of_all(TRAINING)).cluster_centers_
    described = pooling.prototypes(view, TRAINING, 5)
    for patient in HELD_OUT[:5]:
        expected = np.zeros(16)
        pictures = view.of(patient)
        for picture in pictures:
            expected[np.argmin([np.linalg.norm(picture - centre) for centre in centres])] += 1 / len(pictures)
        np.testing.assert_allclose(described(pictures), expected)


def test_fisher_vectors_are_those_of_slow_loops() -> None:
    view = drawn(2.0)
    known = view.of_all(TRAINING)[:, :16].astype(np.float64)
    mixture = GaussianMixture(8, covariance_type="diag", random_state=5).fit(known)
    pictures = view.of(HELD_OUT[0])[:, :16].astype(np.float64)
    share = mixture.predict_proba(pictures)
    by_weight = [(share[:, k] - mixture.weights_[k]).mean() / mixture.weights_[k] ** 0.5 for k in range(8)]
    by_mean, by_deviation = np.zeros((8, 16)), np.zeros((8, 16))
    for k in range(8):
        for c in range(16):
            for n, picture in enumerate(pictures):
                apart = (picture[c] - mixture.means_[k, c]) / mixture.covariances_[k, c] ** 0.5
                by_mean[k, c] += share[n, k] * apart / len(pictures) / mixture.weights_[k] ** 0.5
                by_deviation[k, c] += share[n, k] * (apart**2 - 1) / len(pictures) / (2 * mixture.weights_[k]) ** 0.5
    gradient = np.concatenate([by_weight, by_mean.ravel(), by_deviation.ravel()])
    rooted = np.sign(gradient) * np.abs(gradient) ** 0.5
    described = pooling.fisher(view, TRAINING, 5)
    np.testing.assert_allclose(described(view.of(HELD_OUT[0])), rooted / np.sqrt((rooted**2).sum()), atol=1e-9)


def test_the_kernel_mean_embedding_is_that_of_slow_loops() -> None:
    view = drawn(1.0)
    width = 2 * view.of_all(TRAINING).astype(np.float64).var(axis=0).sum()

    def product(one: int, other: int) -> float:
        pairs = [np.exp(-((a - b) ** 2).sum() / width) for a in view.of(one) for b in view.of(other)]
        return float(np.mean(pairs))

    inner = np.array([[product(one, other) for other in range(45)] for one in range(45)])
    apart = np.diag(inner)[:, None] + np.diag(inner) - 2 * inner
    kernel = np.exp(-apart / apart[:40, :40].mean())
    machine = SVC(kernel="precomputed", class_weight="balanced").fit(kernel[:40, :40], LABELS[TRAINING])
    judge = pooling.support_measures(view, TRAINING, LABELS[TRAINING], 0)
    np.testing.assert_allclose(judge(HELD_OUT[:5]), machine.decision_function(kernel[40:, :40]), atol=1e-4)


def test_the_smooth_hinge_is_that_of_a_slow_loop() -> None:
    scores, labels = np.random.default_rng(0).normal(size=(5, 2)) * 10, [0, 1, 1, 0, 1]
    expected = [
        np.log(sum(np.exp(row[k] - row[label] + (k != label)) for k in range(2)))
        for row, label in zip(scores, labels, strict=True)
    ]
    found = SmoothHinge()(torch.from_numpy(scores), torch.tensor(labels)[:, None].double())
    assert found.item() == pytest.approx(np.mean(expected))


class Watched(BagNetwork):
    """A network whose loss has two parts, each with slope 1; it keeps what it is shown, and its slopes."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.shown: list[tuple[Tensor, float]] = []
        self.slopes: list[float] = []
        self.weight.register_hook(lambda slope: self.slopes.append(slope.item()))  # type: ignore[no-untyped-call]

    def compute_loss(self, Y: Tensor, X: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: N803
        assert self.training
        self.shown.append((X, Y.item()))
        return Y, {"bag": self.weight * 1, "pictures": self.weight * 1}

    def predict(self, X: Tensor, return_inst_pred: bool = False) -> Tensor:  # noqa: N803
        assert not self.training
        assert not return_inst_pred
        return X.sum(dim=(1, 2))


def test_a_step_is_one_patient_with_all_pictures_and_classes_weigh_alike() -> None:
    view = drawn(0.0)
    made: list[Watched] = []

    def make(inputs: int) -> Watched:
        assert inputs == WIDTH
        made.append(Watched(inputs))
        return made[0]

    judge = trained(make, NetworkRecipe(epochs=3))(view, TRAINING, LABELS[TRAINING], 0)
    network = made[0]
    orders = []
    for epoch in range(3):
        steps = network.shown[40 * epoch : 40 * epoch + 40]
        orders.append([patient_of(view, bag[0].numpy()) for bag, _ in steps])
        assert sorted(orders[-1]) == TRAINING.tolist()
        assert [target for _, target in steps] == LABELS[orders[-1]].tolist()
    assert orders[0] != orders[1]
    totals = dict.fromkeys((0, 1), 0.0)
    for (_, target), slope in zip(network.shown, network.slopes, strict=True):
        totals[int(target)] += slope
    assert totals[0] == pytest.approx(totals[1]) == pytest.approx(3 * 40)  # half the steps each, 2 parts
    np.testing.assert_allclose(judge(HELD_OUT), sums(view, HELD_OUT), rtol=1e-5)


def patient_of(view: View, bag: Vectors) -> int:
    (found,) = [patient for patient in range(PATIENTS) if np.array_equal(view.of(patient), bag)]
    return found


def sums(view: View, patients: Indices) -> Floats:
    return np.array([view.of(patient).sum(dtype=np.float64) for patient in patients])


def test_a_network_of_the_library_gets_the_shape_the_first_layer_and_its_options() -> None:
    class Given(nn.Module):
        def __init__(self, **given: object) -> None:
            super().__init__()
            self.given = given

    library, models = ModuleType("torchmil"), ModuleType("torchmil.models")
    models.CLAM_SB = models.DSMIL = Given  # type: ignore[attr-defined]
    with patch.dict(sys.modules, {"torchmil": library, "torchmil.models": models}):
        network = from_torchmil("DSMIL", nonlinear_q=True)(WIDTH)
        clam = networks.clam(WIDTH)
    assert isinstance(network, Given)
    first = network.given.pop("feat_ext")
    assert isinstance(first, nn.Module)
    assert first(torch.zeros(1, 5, WIDTH)).shape == (1, 5, 64)
    assert network.given == {"in_shape": (WIDTH,), "nonlinear_q": True}
    assert isinstance(clam.inst_loss_fn, SmoothHinge)
