"""The fine-tuned expert: it starts from the clinical model and learns from pictures what that does not explain."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from tests.train.bags import make_bags
from train.core.arrays import Floats
from train.core.checkpoint import save_network
from train.core.fitting import FitRecipe, Job
from train.data.bags import Bags
from train.evaluation.nested.finetuned import (
    FineTuned,
    FineTunedDimensions,
    PictureExpert,
    load_finetuned,
    predict,
    train_network,
)
from train.members.embedding import load_embedding
from train.members.imagenet import ClinicalLogit
from train.members.recipes import FINE_TUNED, FineTunedRecipe

CPU = torch.device("cpu")
EVERYBODY = np.arange(12)
QUICK = FineTunedRecipe(FitRecipe(epochs=8, learning_rate=1e-3), batch_patients=6, images_per_patient=3, norm_images=8)


@pytest.fixture
def bags() -> Bags:
    """Counts determine half of the labels; of the other patients, the malignant have darker pictures."""
    made = make_bags([0, 1] * 6, [2, 3] * 6, size=48)
    made.clinical[:, 1] = [5, 60, 5, 60, 5, 60, 8, 8, 8, 8, 8, 8]
    for patient, (start, stop) in enumerate(made.ranges()):
        made.crops[start:stop] //= 4 if made.labels[patient] else 1
    return made


def a_network(bags: Bags, *, size: int = 48, told: float = 0.0) -> FineTuned:
    """The network as at the start of training, but with random last-layer weights of this standard deviation."""
    torch.manual_seed(1)
    network = FineTuned(FineTunedDimensions(size))
    network.pictures.embedding.load_state_dict(load_embedding().state_dict())
    model, _ = clinical_model(bags)
    network.clinical.set(model.coef_[0], float(model.intercept_[0]))
    network.pictures.linear.weight.data = told * torch.randn(1, 1280)
    return network.eval()


def clinical_model(bags: Bags) -> tuple[LogisticRegression, Floats]:
    """The reference: scikit-learn on sex, log count, age and the excess of the count over 7."""
    sex, count, age = bags.clinical.astype(np.float64).T
    features = np.stack([sex, np.log(count) - 2, (age - 60) / 10, 3 * np.log(np.maximum(count, 7) / 7)], axis=1)
    return LogisticRegression(C=3).fit(features, bags.labels), features


def test_the_clinical_logit_is_the_regression_with_a_bend_in_the_count(bags: Bags) -> None:
    model, features = clinical_model(bags)
    logit = ClinicalLogit()
    logit.set(model.coef_[0], float(model.intercept_[0]))
    found = logit(torch.from_numpy(bags.clinical)).numpy()
    np.testing.assert_allclose(found, model.decision_function(features), atol=1e-5)


def test_a_patient_gets_the_clinical_logit_and_the_mean_of_its_pictures(bags: Bags, tmp_path: Path) -> None:
    network = a_network(bags, told=0.5)
    save_network(tmp_path / "tuned.safetensors", network, network.dimensions)
    asked = np.array([5, 2])
    found = predict(tmp_path / "tuned.safetensors", bags, asked, CPU)
    with torch.inference_mode():
        clinical = network.clinical(torch.from_numpy(bags.clinical)).double().numpy()
        for row, patient in enumerate(asked):
            crops = bags.crops[bags.offsets[patient] : bags.offsets[patient + 1]]
            each = [network.pictures(crops[index : index + 1]).double().item() for index in range(len(crops))]
            assert np.std(each) > 0.01
            assert found["probability"][row] == pytest.approx(expit(clinical[patient] + np.mean(each)), abs=1e-5)
            assert found["pictures_only"][row] == pytest.approx(expit(np.mean(each)), abs=1e-5)


def test_a_picture_is_resized_to_what_the_network_wants(bags: Bags) -> None:
    small, large = a_network(bags, told=0.5), a_network(bags, size=96, told=0.5)
    pixels = (bags.crops[:3].permute(0, 3, 1, 2).float() - 127) / 128
    resized = functional.interpolate(pixels, scale_factor=2.0, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        expected = small.pictures.linear(small.pictures.embedding.features(resized)).squeeze(1)
        torch.testing.assert_close(large.pictures(bags.crops[:3]), expected, atol=1e-4, rtol=1e-4)


def test_training_begins_at_imagenet_weights_and_the_clinical_model(bags: Bags, tmp_path: Path) -> None:
    still = replace(QUICK, fit=replace(QUICK.fit, epochs=1, learning_rate=0.0))
    network = train_network(bags, EVERYBODY, still, Job("still", tmp_path / "still.safetensors", 0), CPU)
    given = load_embedding().state_dict()
    own = network.pictures.embedding.state_dict()
    weights = [name for name in given if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(own[name], given[name]) for name in weights)
    save_network(tmp_path / "still.safetensors", network, network.dimensions)
    found = predict(tmp_path / "still.safetensors", bags, EVERYBODY, CPU)["probability"]
    model, features = clinical_model(bags)
    clinical = model.predict_proba(features)[:, 1]
    np.testing.assert_allclose(found, clinical, atol=1e-5)


def test_pictures_tell_what_the_count_leaves_open(bags: Bags, tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    network = train_network(bags, EVERYBODY, QUICK, Job("tuned", path, 0), CPU)
    save_network(path, network, network.dimensions)
    found = predict(path, bags, EVERYBODY, CPU)
    model, features = clinical_model(bags)
    clinical = model.predict_proba(features)[:, 1]
    alike = EVERYBODY[6:]  # patients with equal counts
    assert roc_auc_score(bags.labels[alike], clinical[alike]) < 0.9
    assert roc_auc_score(bags.labels[alike], found["probability"][alike]) == 1.0
    assert roc_auc_score(bags.labels[alike], found["pictures_only"][alike]) == 1.0
    assert isinstance(load_finetuned(path).pictures, PictureExpert)


def test_ways_of_fine_tuning_differ_as_their_names_say() -> None:
    plain, gently, larger = (FINE_TUNED[name] for name in ("fine-tuned", "fine-tuned gently", "fine-tuned at 224"))
    assert gently == replace(plain, fit=replace(plain.fit, learning_rate=plain.fit.learning_rate * 0.3))
    assert larger == replace(plain, input_size=224)
