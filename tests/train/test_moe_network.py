"""The mixture of experts by value, and the report's two errors, demonstrated on the report's own head."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.members.gated import GatedOutput
from train.members.mixture import moe_loss, weighted_cross_entropy
from train.members.mixture_network import Encoder, Head, MixtureOfExperts, MoeDimensions, bag_means

Values = npt.NDArray[np.float64]
CHANNELS = (2, 3, 4, 5, 6, 8)


class ReportHead(nn.Module):
    """The head of the report's authors: (P, 256, 3, 3) and scaled (P, 3) -> p, image, clinical, each (P, 2).

    Every expert ends in a sigmoid, and the clinical expert has a single output that is added to both classes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.image_map, self.image_expert = nn.Conv2d(channels, 1, 1), nn.Linear(9, 2)
        self.clinical_expert = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), nn.Linear(2, 1), nn.Sigmoid())
        self.gate_map, self.gate = nn.Conv2d(channels, 1, 1), nn.Linear(9 + 3, 2)

    def forward(self, bags: Tensor, clinical: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image = self.image_expert(self.image_map(bags).flatten(1)).sigmoid()
        clinic = self.clinical_expert(clinical).expand(-1, 2)
        gate = self.gate(torch.cat([self.gate_map(bags).tanh().flatten(1), clinical], dim=1)).softmax(1)
        return gate[:, :1] * image + gate[:, 1:] * clinic, image, clinic


def head_and_inputs(patients: int, seed: int = 0) -> tuple[Head, Tensor, Tensor]:
    torch.manual_seed(seed)
    head = Head(8, log_count=False).eval()
    clinical = torch.stack(
        [torch.randint(0, 2, (patients,)).float(), 4 + 50 * torch.rand(patients), 20 + 60 * torch.rand(patients)], dim=1
    )
    head.scale.fit(clinical)
    return head, torch.randn(patients, 8, 3, 3), clinical


def malignant_of_clinical(head: nn.Module, bags: Tensor, clinical: Tensor) -> Tensor:
    output = head(bags, clinical)
    return output.clinical if isinstance(output, GatedOutput) else output[2].softmax(1)[:, 1]


def test_the_reports_clinical_expert_cannot_tell_the_classes_apart() -> None:
    _, bags, clinical = head_and_inputs(50)
    report = ReportHead(8)
    for parameter in report.parameters():
        nn.init.normal_(parameter, std=1)
    bags, clinical = bags.double(), (clinical / clinical.amax(0)).double()
    report.double()
    assert (malignant_of_clinical(report, bags, clinical) == 0.5).all()
    mixed, image, clinic = report(bags, clinical)
    assert clinic[:, 0].std() > 0.001  # it does depend on the patients
    assert torch.equal(mixed.argmax(1), image.argmax(1))  # whatever the gate does, only the pictures decide


def test_our_clinical_expert_can() -> None:
    head, bags, clinical = head_and_inputs(50)
    probability = malignant_of_clinical(head, bags, clinical)
    assert probability.std() > 0.001
    for column in range(3):
        changed = clinical.clone()
        changed[:, column] += 1
        assert (malignant_of_clinical(head, bags, changed) - probability).abs().min() > 1e-6
    decisions = [head(bags, clinical + torch.tensor([0.0, step, 0.0])).probability for step in (-500, 500)]
    assert (decisions[0] - decisions[1]).abs().min() > 1e-4  # it has an effect on the mixture


def test_sigmoids_in_a_softmax_cross_entropy_can_never_be_sure() -> None:
    _, bags, clinical = head_and_inputs(50)
    report = ReportHead(8)
    for parameter in report.parameters():
        nn.init.normal_(parameter, std=100)  # as confident as possible
    as_trained = report(bags, clinical)[0].softmax(1)
    assert as_trained.min() >= 0.2689
    assert as_trained.max() <= 0.7311


def test_our_experts_can_be_sure() -> None:
    head, bags, clinical = head_and_inputs(50)
    for name, parameter in head.named_parameters():
        if name.startswith(("image_expert", "image_map")):
            nn.init.normal_(parameter, std=20)
    image = head(bags, clinical).image
    assert image.min() < 0.01
    assert image.max() > 0.99


@pytest.mark.parametrize("log_count", [False, True])
def test_head_by_value(log_count: bool) -> None:
    _, bags, clinical = head_and_inputs(6)
    head = Head(8, log_count).eval()
    head.scale.fit(clinical)
    got = head(bags, clinical)
    parts = {name: values.detach().double().numpy() for name, values in head.state_dict().items()}
    maps, raw = bags.double().numpy(), clinical.double().numpy()

    def softmax(logits: Values) -> Values:
        return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))

    def linear(values: Values, name: str) -> Values:
        return np.asarray(values @ parts[f"{name}.weight"].T + parts[f"{name}.bias"])

    def one_map(name: str) -> Values:
        weight = parts[f"{name}.weight"][0, :, 0, 0]
        return np.asarray(np.einsum("pchw,c->phw", maps, weight) + parts[f"{name}.bias"][0]).reshape(len(maps), 9)

    if log_count:
        raw = np.stack([raw[:, 0], np.log(raw[:, 1]), raw[:, 2]], axis=1)
    scaled = (raw - raw.min(axis=0)) / (raw.max(axis=0) - raw.min(axis=0))
    image = softmax(linear(one_map("image_map"), "image_expert"))[:, 1]
    hidden = 1 / (1 + np.exp(-linear(scaled, "clinical_expert.0")))
    clinic = softmax(linear(hidden, "clinical_expert.2"))[:, 1]
    gate = softmax(linear(np.concatenate([np.tanh(one_map("gate_map")), scaled], axis=1), "gate.1"))[:, 0]
    expected = (gate * image + (1 - gate) * clinic, image, clinic, gate)
    for found, wanted in zip((got.probability, got.image, got.clinical, got.gate), expected, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=0, atol=1e-6)


def test_bag_means_equal_a_loop() -> None:
    maps, patient = torch.randn(11, 2, 3, 3), torch.tensor([0] * 5 + [1] + [2] * 5)
    means = bag_means(maps, patient, 3)
    for index in range(3):
        torch.testing.assert_close(
            means[index], torch.stack([m for m, p in zip(maps, patient, strict=True) if p == index]).mean(0)
        )
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(bag_means(maps[order], patient[order], 3), means)


def test_encoder_gives_256_maps_of_3_by_3() -> None:
    encoder = Encoder(MoeDimensions().channels).eval()
    with torch.inference_mode():
        assert encoder(torch.zeros(2, 112, 112, 3, dtype=torch.uint8)).shape == (2, 256, 3, 3)
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    assert [module.out_channels for module in convolutions] == [8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 256, 256]
    assert all(module.kernel_size == (3, 3) for module in convolutions)


def test_a_patients_score_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    network = MixtureOfExperts(MoeDimensions(CHANNELS)).eval()
    images = torch.randint(0, 256, (7, 112, 112, 3), dtype=torch.uint8)
    patient, clinical = torch.tensor([0, 0, 1, 1, 1, 2, 2]), torch.tensor([[0, 5.0, 40], [1, 9, 70], [1, 30, 80]])
    with torch.inference_mode():
        together = network(images, patient, clinical)
        for index in range(3):
            own = patient == index
            alone = network(images[own], patient[own] - index, clinical[index : index + 1])
            for name in ("probability", "image", "clinical", "gate"):
                torch.testing.assert_close(getattr(alone, name)[0], getattr(together, name)[index], rtol=0, atol=1e-6)


def test_loss_equals_torchs_weighted_cross_entropy() -> None:
    logits, labels = torch.randn(9, 2) * 3, torch.tensor([0, 1, 1, 0, 1, 0, 0, 0, 1])
    expected = functional.cross_entropy(logits, labels, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(weighted_cross_entropy(logits.softmax(1)[:, 1], labels), expected)


def test_loss_stays_finite_where_the_softmax_reached_0() -> None:
    probability = torch.tensor([0.0, 1.0], requires_grad=True)
    loss = weighted_cross_entropy(probability, torch.tensor([1, 0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(-np.log(1e-7), rel=1e-4)
    assert probability.grad is not None
    assert torch.isfinite(probability.grad).all()


def test_experts_own_losses_are_added_by_their_weight() -> None:
    parts = [torch.tensor([0.2, 0.7]), torch.tensor([0.4, 0.6]), torch.tensor([0.1, 0.9])]
    output, labels = GatedOutput(parts[0], parts[1], parts[2], torch.zeros(2)), torch.tensor([0, 1])
    mixture, image, clinical = (weighted_cross_entropy(part, labels) for part in parts)
    torch.testing.assert_close(moe_loss(output, labels, 0.0), mixture)
    torch.testing.assert_close(moe_loss(output, labels, 0.5), mixture + 0.5 * (image + clinical))
