"""The networks compared with the baseline: slow references, and the table on noise."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor

from infer.errors import UsageError
from tests.train.bags import make_bags
from train.core.checkpoint import save_network
from train.data.bags import Bags
from train.evaluation.report_protocol import divisions
from train.experiments import zoo
from train.experiments.zoo import (
    NETWORKS,
    TINY,
    GatedAttention,
    MeanPooling,
    ZooDimensions,
    ZooNetwork,
    compare,
    load_zoo,
    score,
)
from train.members import baseline
from train.members.baseline import Baseline, BaselineDimensions

pytestmark = pytest.mark.slow  # an experiment: nothing that ships depends on it

CPU = torch.device("cpu")
CHEAPEST = ("mean-pooling", "baseline")  # one of each family
POOLINGS = ("mean-pooling", "attention-pooling")
RECIPE = replace(TINY, fit=replace(TINY.fit, epochs=2), images_per_patient=2)
PATIENT = torch.tensor([0, 0, 1, 2, 2, 2])  # patient of each picture
CLINICAL = torch.tensor([[0, 5.0, 40], [1, 9, 70], [1, 30, 80]])


def pictures() -> Tensor:
    return torch.randint(0, 256, (6, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def made(name: str, log_count: bool = False) -> ZooNetwork:
    torch.manual_seed(0)
    network = ZooNetwork(ZooDimensions(name, log_count)).eval()
    network.scale.fit(CLINICAL)
    return network


@pytest.fixture(scope="module")
def bags() -> Bags:
    made = make_bags([0] * 10 + [1] * 15, [1, 2, 3, 2, 4] * 5, size=112)
    made.clinical[divisions(made)[0].validation[0]] = [0, 1, 5]  # below all training values
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_gives_two_logits(name: str, tmp_path: Path) -> None:
    network = made(name, log_count=True)
    assert network.family == ("bag" if name in POOLINGS else "image")
    images, patient, clinical = pictures()[:3], PATIENT[:3], CLINICAL[:2]
    with torch.inference_mode():
        logits = network(images, patient, clinical)
    assert logits.shape == ((2, 2) if network.family == "bag" else (3, 2))
    assert torch.isfinite(logits).all()
    save_network(tmp_path / "network.safetensors", network, network.dimensions)
    again = load_zoo(tmp_path / "network.safetensors")
    assert again.dimensions == network.dimensions
    weights = again.state_dict()
    assert all(torch.equal(values, weights[key]) for key, values in network.state_dict().items())


@pytest.mark.parametrize("name", [*POOLINGS, "baseline", "unet-encoder"])
def test_the_clinical_values_reach_every_row(name: str) -> None:
    network, features = made(name), torch.rand(6, {"baseline": 10000, "unet-encoder": 256}.get(name, 120))
    with torch.inference_mode():
        logits = network.judge(features, PATIENT, CLINICAL)
        for column in range(3):
            moved = CLINICAL.clone()
            moved[1, column] += 20
            changed = (network.judge(features, PATIENT, moved) - logits).abs().amax(dim=1) > 1e-6
            rows = torch.arange(3) if network.family == "bag" else PATIENT
            assert torch.equal(changed, rows == 1)


@pytest.mark.parametrize(("name", "convolutions"), [("vgg-16", 13), ("vgg-19", 16), ("resnet-18", 20)])
def test_torchvisions_networks_have_their_depth(name: str, convolutions: int) -> None:
    """16 and 19 minus VGG's three linear layers; 18 minus ResNet's one, plus three shortcuts."""
    modules = list(NETWORKS[name]().features.modules())
    assert sum(isinstance(module, torch.nn.Conv2d) for module in modules) == convolutions
    assert not any(isinstance(module, torch.nn.Linear) for module in modules)


def test_the_u_nets_encoder_has_five_levels_of_two_convolutions() -> None:
    modules = list(NETWORKS["unet-encoder"]().features.modules())
    widths = [module.out_channels for module in modules if isinstance(module, torch.nn.Conv2d)]
    assert widths == [16, 16, 32, 32, 64, 64, 128, 128, 256, 256]
    assert sum(isinstance(module, torch.nn.MaxPool2d) for module in modules) == 4


def test_the_baseline_of_the_table_is_the_baseline(bags: Bags) -> None:
    network, reference = made("baseline"), Baseline(BaselineDimensions()).eval()
    reference.convolutions.load_state_dict(network.features[0].state_dict())  # type: ignore[index]
    reference.classifier.load_state_dict(network.head.state_dict())
    reference.scale.load_state_dict(network.scale.state_dict())
    patients = np.array([4, 0, 7])
    with torch.inference_mode():
        torch.testing.assert_close(
            network(pictures(), PATIENT, CLINICAL), reference(pictures(), CLINICAL[PATIENT]), rtol=0, atol=1e-6
        )
    np.testing.assert_allclose(
        score(network, bags, patients, CPU), baseline.score(reference, bags, patients, CPU), rtol=0, atol=1e-6
    )


def test_gated_attention_equals_the_papers_equations() -> None:
    """Ilse et al. 2018: a_k = softmax_k w . (tanh(V h_k) * sigmoid(U h_k)), z = sum of a_k h_k."""
    torch.manual_seed(0)
    pooling, features = GatedAttention(5, hidden=4).double(), 3 * torch.randn(6, 5, dtype=torch.float64)
    v, u, w = (part.weight.detach().numpy() for part in (pooling.signal, pooling.gate, pooling.score))
    expected = []
    for patient in range(3):
        own = [row.numpy() for row, owner in zip(features, PATIENT, strict=True) if owner == patient]
        exponentials = [np.exp(w[0] @ (np.tanh(v @ h) / (1 + np.exp(-(u @ h))))) for h in own]
        shares = [value / sum(exponentials) for value in exponentials]
        expected.append(sum(share * h for share, h in zip(shares, own, strict=True)))
    np.testing.assert_allclose(pooling(features, PATIENT, 3).detach().numpy(), np.stack(expected), rtol=1e-12)


def test_attention_sums_to_1_within_each_patient_however_high_its_scores() -> None:
    torch.manual_seed(0)
    pooling, features = GatedAttention(5, hidden=4), torch.randn(6, 5)
    for scale in (1.0, 1e6):
        with torch.no_grad():
            pooling.score.weight.mul_(scale)
            weights = pooling.weights(features, PATIENT, 3)
        sums = [weights[patient == PATIENT].sum().item() for patient in range(3)]
        assert sums == pytest.approx([1, 1, 1], abs=1e-6)
        assert weights.min() >= 0
    with torch.no_grad():
        assert weights[2] == 1  # the only picture of its patient


def test_attention_learns_as_a_softmax_would() -> None:
    """Subtracting a constant from the scores must not change the gradient."""
    torch.manual_seed(0)
    pooling, features = GatedAttention(5, hidden=4), torch.randn(6, 5)
    pooling(features, PATIENT, 3).pow(2).sum().backward()
    found = [parameter.grad.clone() for parameter in pooling.parameters() if parameter.grad is not None]
    pooling.zero_grad()
    scores = pooling.score(pooling.signal(features).tanh() * pooling.gate(features).sigmoid())  # (6, 1)
    parts = [patient == PATIENT for patient in range(3)]
    sum(((scores[part].softmax(0) * features[part]).sum(0) ** 2).sum() for part in parts).backward()
    for gradient, parameter in zip(found, pooling.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


def test_mean_pooling_equals_a_loop() -> None:
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    pooled = MeanPooling()(features, PATIENT, 3)
    for patient in range(3):
        own = [row for row, owner in zip(features, PATIENT, strict=True) if owner == patient]
        torch.testing.assert_close(pooled[patient], torch.stack(own).sum(0) / len(own))


@pytest.mark.parametrize("name", POOLINGS)
def test_a_patients_logits_depend_on_its_own_pictures_in_any_order(name: str) -> None:
    network, images = made(name), pictures()
    with torch.inference_mode():
        together = network(images, PATIENT, CLINICAL)
        order = torch.tensor([5, 1, 3, 2, 0, 4])
        torch.testing.assert_close(network(images[order], PATIENT[order], CLINICAL), together, rtol=0, atol=1e-6)
        for patient in range(3):
            own = images[patient == PATIENT]
            alone = network(own, torch.zeros(len(own), dtype=torch.int64), CLINICAL[patient : patient + 1])
            torch.testing.assert_close(alone[0], together[patient], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CHEAPEST)
def test_a_batch_joins_each_picture_to_its_own_patient(name: str, bags: Bags) -> None:
    patients = np.array([2, 9, 4, 17, 21])
    recipe = replace(RECIPE, batch_images=3, batch_patients=2, turns=False)
    draw = zoo._bag_batches if name == "mean-pooling" else zoo._image_batches
    owner, seen = bags.patient_of_image(), []
    for batch in draw(bags, patients, recipe, np.random.default_rng(0), CPU):
        assert len(batch.patients) == len(batch.labels) == len(batch.clinical) <= 3
        np.testing.assert_array_equal(batch.clinical.numpy(), bags.clinical[batch.patients])
        np.testing.assert_array_equal(batch.labels.numpy(), bags.labels[batch.patients])
        for picture, row in zip(batch.images, batch.patient, strict=True):
            (index,) = np.flatnonzero((bags.crops == picture).all(dim=(1, 2, 3)).numpy())
            assert owner[index] == batch.patients[row]
            seen.append(index)
    counts = np.bincount(owner[seen], minlength=len(bags))
    np.testing.assert_array_equal(counts[patients], np.minimum(np.diff(bags.offsets)[patients], 2))
    assert len(set(seen)) == len(seen) == counts[patients].sum()


@pytest.fixture(scope="module")
def compared(bags: Bags, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    run = tmp_path_factory.mktemp("run")
    return run, compare(bags, run, RECIPE, seed=1, device=CPU, names=CHEAPEST)


def test_the_table_says_what_the_networks_do(compared: tuple[Path, pd.DataFrame], bags: Bags) -> None:
    run, table = compared
    pd.testing.assert_frame_equal(pd.read_csv(run / "zoo/zoo.csv"), table)
    assert table.columns.tolist() == [
        "network", "family", "parameters", "epochs", "recipe", "validation_balanced_accuracy", "validation_auc",
        "best_epoch_balanced_accuracy_optimistic", "seconds_per_epoch", "pictures_per_second",
    ]  # fmt: skip
    assert table["network"].tolist() == ["baseline", "mean-pooling"]  # in the order of NETWORKS
    assert table["family"].tolist() == ["image", "bag"]
    assert table["parameters"].tolist() == [456 + 2416 + 10003 * 120 + 120 + 120 * 84 + 84 + 84 * 2 + 2,
                                            456 + 2416 + 10000 * 120 + 120 + 123 * 84 + 84 + 84 * 2 + 2]  # fmt: skip
    assert table["epochs"].tolist() == [2, 2]
    assert table["recipe"].tolist() == ["tiny", "tiny"]
    split = divisions(bags)[0]
    trained = np.minimum(np.diff(bags.offsets)[split.training], 2).sum()
    for row in table.to_dict("records"):
        path = run / "zoo" / f"{row['network']}.safetensors"
        network = load_zoo(path)
        probability = score(network, bags, split.validation, CPU)
        assert row["validation_auc"] == pytest.approx(roc_auc_score(bags.labels[split.validation], probability))
        history = pd.read_csv(path.with_suffix(".history.csv"))
        assert row["validation_balanced_accuracy"] == history["validation_balanced_accuracy"].iloc[-1]
        # Averaged over the last epoch only, the final network is that of the last epoch.
        called = balanced_accuracy_score(bags.labels[split.validation], probability >= 0.5)
        assert row["validation_balanced_accuracy"] == pytest.approx(called)
        assert row["best_epoch_balanced_accuracy_optimistic"] == history["validation_balanced_accuracy"].max()
        assert row["seconds_per_epoch"] == pytest.approx(history["seconds"].median())
        assert (history["training_seconds"] <= history["seconds"] + 0.01).all()
        assert row["pictures_per_second"] == pytest.approx(trained / history["training_seconds"].median(), abs=0.1)
        # Scaled by the training patients only.
        low = np.stack([bags.clinical[:, 0], np.log(bags.clinical[:, 1]), bags.clinical[:, 2]], axis=1)[split.training]
        np.testing.assert_allclose(network.scale.low.numpy(), low.min(axis=0), rtol=1e-5)


def test_an_images_score_is_the_mean_of_its_pictures(compared: tuple[Path, pd.DataFrame], bags: Bags) -> None:
    network = load_zoo(compared[0] / "zoo/baseline.safetensors")
    for patient, probability in zip((4, 8), score(network, bags, np.array([4, 8]), CPU), strict=True):
        clinical = torch.from_numpy(bags.clinical[[patient]])
        values = []
        for index in range(bags.offsets[patient], bags.offsets[patient + 1]):
            with torch.inference_mode():
                logits = network(bags.crops[index : index + 1], torch.zeros(1, dtype=torch.int64), clinical)
            values.append(logits.softmax(1)[0, 1].item())
        assert probability == pytest.approx(np.mean(values), abs=1e-6)


def test_the_last_and_the_best_epoch_are_told_apart(
    compared: tuple[Path, pd.DataFrame], bags: Bags, tmp_path: Path
) -> None:
    shutil.copytree(compared[0], tmp_path / "run")
    (tmp_path / "run/zoo/baseline.csv").unlink()
    path = tmp_path / "run/zoo/baseline.history.csv"
    history = pd.concat([pd.read_csv(path)] * 2)
    history["validation_balanced_accuracy"] = [0.5, 0.875, 0.625, 0.75]
    history["seconds"] = [9.0, 3.0, 2.0, 3.0]
    history.to_csv(path, index=False)
    row = compare(bags, tmp_path / "run", RECIPE, seed=1, device=CPU, names=("baseline",)).iloc[0]
    assert (row["validation_balanced_accuracy"], row["best_epoch_balanced_accuracy_optimistic"]) == (0.75, 0.875)
    assert (row["epochs"], row["seconds_per_epoch"]) == (4, 3.0)


def test_a_second_call_trains_nothing(
    compared: tuple[Path, pd.DataFrame], bags: Bags, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, table = compared

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(zoo, "train_network", forbidden)
    pd.testing.assert_frame_equal(compare(bags, run, RECIPE, seed=1, device=CPU, names=("baseline",)), table)
    (run / "zoo/baseline.csv").unlink()  # as after an interruption between checkpoint and row
    pd.testing.assert_frame_equal(compare(bags, run, RECIPE, seed=1, device=CPU, names=CHEAPEST), table)


def test_another_recipe_seed_or_name_is_refused(compared: tuple[Path, pd.DataFrame], bags: Bags) -> None:
    run, _ = compared
    with pytest.raises(UsageError, match="another recipe or seed"):
        compare(bags, run, zoo.FULL, seed=1, device=CPU, names=CHEAPEST)
    with pytest.raises(UsageError, match="another recipe or seed"):
        compare(bags, run, RECIPE, seed=2, device=CPU, names=CHEAPEST)
    with pytest.raises(UsageError, match="unknown network vgg-11"):
        compare(bags, run, RECIPE, seed=1, device=CPU, names=("baseline", "vgg-11"))
