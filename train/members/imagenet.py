"""The ImageNet member: an expert on features of a network pretrained on photographs, a clinical expert, and a gate.

EfficientNet-Lite0 is not fine-tuned. The picture expert is logistic regression on sex, age, the piecewise-linear log
count and the principal components of the patient's mean features; their number and its penalty are fixed. It is linear
in that mean, so each picture has its own contribution to the patient's logit. The clinical expert is Gaussian naive
Bayes on sex, count and age. A gate, fitted on predictions for patients neither expert had seen, weights the two, unless
these predictions say that the picture expert is better alone. No picture of a held-out patient is used to fit the model
that scores this patient.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.special import logit
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from train.core.arrays import Floats, Indices
from train.core.calibration import CLIP
from train.core.checkpoint import load_dimensions, load_weights, save_network
from train.core.files import write_table, write_text
from train.core.threads import on_one_thread
from train.data.bags import CROP_SIZE, Bags
from train.data.inputs import EXCESS, KNOT, bent_features
from train.data.whose_pictures import COLUMNS, OWN, by_pictures
from train.members.candidate import Candidate
from train.members.count_floor import FlooredBayes
from train.members.embedding import FEATURES, Magnification, weights_digest
from train.members.features import embed_pictures
from train.members.gated import GatedOutput
from train.members.gating import GATE_PULLS, Gate, choose_gate, no_gate
from train.members.linear import affine, fit_fixed, fixed_numbers
from train.members.out_of_fold import ALL_OF_FOLD
from train.members.training import NUMBERS, MemberJob, MemberTraining, NestedJob, as_text
from train.progress.report import steps

FOLDER = "imagenet"
MAGNIFICATION = Magnification(CROP_SIZE, 224)
BENT = 4  # clinical features of the picture expert
GATE_FEATURES = 3  # the first of these are inputs of the gate, all but the excess
INNER = 3  # inner folds
LIMIT = float(logit(1 - CLIP))  # an expert's logit is clipped to +-LIMIT before calibration
BUFFERS = {  # naive Bayes (reactive, malignant), calibration of each expert, gate
    "log_prior": (2,), "mean": (2, 3), "variance": (2, 3), "floor": (), "slope": (2,), "intercept": (2,), "gate": (6,)
}  # fmt: skip


@dataclass(frozen=True)
class ImageNetDimensions:
    """Sizes needed to rebuild the network from a checkpoint."""

    features: int = FEATURES


class ClinicalLogit(nn.Module):
    """Raw (P, 3) sex, count in 10^9/L, age in years -> contribution to the logit, linear in `bent_features`: (P,)."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: Tensor
        self.bias: Tensor
        self.register_buffer("weights", torch.zeros(BENT))
        self.register_buffer("bias", torch.zeros(()))

    def set(self, weights: Floats, bias: float) -> None:
        """Set the linear model: weights (4,) and intercept."""
        self.weights.copy_(torch.from_numpy(weights))
        self.bias.fill_(bias)

    def forward(self, clinical: Tensor) -> Tensor:
        return bent_features(clinical) @ self.weights + self.bias


class PictureExpert(nn.Module):
    """Features (N, 1280) -> contribution of each picture to the picture expert's logit of its patient, (N,)."""

    def __init__(self, features: int = FEATURES) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features).squeeze(1)  # type: ignore[no-any-return]


class ImageNetHead(nn.Module):
    """Mean contribution of a patient's pictures (P,), raw clinical values (P, 3) -> GatedOutput, in float64.

    From the logits on in double precision: in single precision, a probability near 1 holds too few digits of its odds
    to tell by how much a picture changes them. Where the picture expert stands alone, the gate is exactly 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clinical = ClinicalLogit()  # of the picture expert
        for name, shape in BUFFERS.items():
            self.register_buffer(name, torch.zeros(shape))

    def set(self, model: "GatedModel") -> None:
        """Set naive Bayes and the gate; the picture expert's clinical part is set separately."""
        bayes, gate = model.bayes.plain, model.gate
        values = {
            "log_prior": np.log(bayes.class_prior_),
            "mean": bayes.theta_,
            "variance": bayes.var_,
            "floor": model.bayes.floor,
            "slope": [one.slope for one in gate.calibration],
            "intercept": [one.intercept for one in gate.calibration],
            "gate": gate.weights,
        }
        for name, value in values.items():
            self.get_buffer(name).copy_(torch.from_numpy(np.asarray(value)))

    def forward(self, contribution: Tensor, clinical: Tensor) -> GatedOutput:
        logits = torch.stack([self.clinical(clinical) + contribution, self._bayes(clinical)], dim=1)  # (P, 2)
        logits = self._of("slope") * logits.clamp(-LIMIT, LIMIT) + self._of("intercept")
        constant = torch.ones_like(logits[:, :1])
        seen = torch.cat([constant, bent_features(clinical)[:, :GATE_FEATURES], logits], dim=1)  # (P, 6)
        share = (seen @ self._of("gate")).double().sigmoid()
        pictures, bayes = logits.double().sigmoid().unbind(1)
        return GatedOutput(share * pictures + (1 - share) * bayes, pictures, bayes, share)

    def _bayes(self, clinical: Tensor) -> Tensor:
        """Log odds of malignant by Gaussian naive Bayes, with a floor on the count: (P,)."""
        sex, count, age = clinical.unbind(1)
        values = torch.stack([sex, count.maximum(self._of("floor")), age], dim=1)
        variance = self._of("variance")
        distance = (values[:, None] - self._of("mean")) ** 2 / variance + variance.log()  # (P, 2, 3)
        joint = self._of("log_prior") - distance.sum(-1) / 2  # (P, 2)
        return joint[:, 1] - joint[:, 0]

    def _of(self, name: str) -> Tensor:
        return self.get_buffer(name)


class ImageNetNetwork(nn.Module):
    """The contribution of each picture, and the head that turns their mean into a patient's probability."""

    def __init__(self, dimensions: ImageNetDimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.pictures = PictureExpert(dimensions.features)
        self.head = ImageNetHead()


@dataclass(frozen=True)
class GatedModel:
    """Both experts and the gate, as scikit-learn models."""

    pictures: Pipeline  # takes (P, 4 + 1280) features
    bayes: FlooredBayes  # takes raw clinical values
    gate: Gate

    def predict(self, features: Floats, clinical: npt.NDArray[np.float32]) -> Floats:
        """Probability of malignant: (P, 4 + 1280), (P, 3) -> (P,)."""
        return self.gate.mixed(_experts(self.pictures, self.bayes, features, clinical), features[:, :GATE_FEATURES])


def train_imagenet(bags: Bags, folds: Indices, run: Path, device: torch.device) -> pd.DataFrame:
    """Fit what is missing in RUN/imagenet: out-of-fold predictions and full.safetensors, fitted on all patients.

    `pictures_only` comes from models that use only the pictures.

    Returns:
        Out-of-fold predictions, one row per patient.
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path, network_path, numbers_path = folder / "out_of_fold.csv", folder / "full.safetensors", folder / NUMBERS
    mine = as_text(numbers())
    # One fitted by an earlier version, at another magnification, is fitted again.
    if path.exists() and network_path.exists() and numbers_path.exists() and numbers_path.read_text() == mine:
        return pd.read_csv(path, dtype={"patient_id": str}, keep_default_na=False)
    means = embed_pictures(bags, run, device, MAGNIFICATION).means(bags)
    probability, pictures_only = np.empty(len(bags)), np.empty(len(bags))
    for fold in steps(np.unique(folds).tolist(), "training", more=ALL_OF_FOLD):
        training, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        probability[held_out] = fit_and_predict(bags, means, training, held_out)[OWN]
        alone = fit_fixed(means[training], bags.labels[training], FEATURES)
        pictures_only[held_out] = alone.predict_proba(means[held_out])[:, 1]
    network = fit_network(bags, means, np.arange(len(bags)))
    save_network(network_path, network, network.dimensions)
    facts = {"patient_id": bags.patient_ids, "fold": folds, "label": bags.labels}
    table = pd.DataFrame({**facts, "probability": probability, "pictures_only": pictures_only})
    write_table(path, table)
    write_text(numbers_path, mine)
    return table


@on_one_thread
def fit_and_predict(bags: Bags, means: Floats, training: Indices, asked: Indices) -> dict[str, Floats]:
    """Fit on some patients and predict probabilities for others, for each of COLUMNS: (A,).

    Args:
        bags: all patients.
        means: (P + 1, 1280) mean features of every patient, the last row those of a blank picture.
        training: indices of the patients to fit on.
        asked: indices of the patients to predict.
    """
    model = fit_gated(bags, _features(bags, means), training)
    return by_pictures(
        asked,
        bags.patient_ids,
        lambda shown: model.predict(_features(bags, means, asked, shown), bags.clinical[asked]),
    )


def fit_gated(bags: Bags, features: Floats, training: Indices) -> GatedModel:
    """Fit the gate, or none, on inner out-of-fold predictions, and the experts on all training patients.

    Args:
        bags: all patients.
        features: (P, 4 + 1280) features of all patients.
        training: indices of the patients to fit on.
    """
    labels = bags.labels[training]
    experts, folds = np.empty((2, len(training))), np.empty(len(training), dtype=np.int64)
    splitter = StratifiedKFold(INNER, shuffle=True, random_state=0)
    for number, (rest, held_out) in enumerate(splitter.split(labels, labels)):
        fitted = _fit_experts(bags, features, training[rest])
        asked = training[held_out]
        experts[:, held_out] = _experts(*fitted, features[asked], bags.clinical[asked])
        folds[held_out] = number
    gates = (choose_gate(experts, features[training, :GATE_FEATURES], labels, folds), no_gate(experts, labels, folds))
    gate = min(gates, key=lambda one: one.log_loss).gate
    return GatedModel(*_fit_experts(bags, features, training), gate)


def _fit_experts(bags: Bags, features: Floats, training: Indices) -> tuple[Pipeline, FlooredBayes]:
    labels = bags.labels[training]
    return fit_fixed(features[training], labels, FEATURES), FlooredBayes(bags.clinical[training], labels)


def _experts(pictures: Pipeline, bayes: FlooredBayes, features: Floats, clinical: npt.NDArray[np.float32]) -> Floats:
    """Both experts' probabilities: (2, P)."""
    return np.stack([pictures.predict_proba(features)[:, 1], bayes.predict(clinical)])


@on_one_thread
def fit_network(bags: Bags, means: Floats, training: Indices) -> ImageNetNetwork:
    """The same model as a network; the mean contribution of pictures is 0 over the training patients."""
    features = _features(bags, means)
    model = fit_gated(bags, features, training)
    weights, constant = affine(model.pictures, features.shape[1])
    clinical, pictures = weights[:BENT], weights[BENT:]
    average = float((means[training] @ pictures).mean())
    network = ImageNetNetwork(ImageNetDimensions())
    network.head.set(model)
    network.head.clinical.set(clinical, constant + average)
    with torch.no_grad():
        network.pictures.linear.weight.copy_(torch.from_numpy(pictures)[None])
        network.pictures.linear.bias.fill_(-average)
    return network.eval()


def numbers() -> dict[str, object]:
    """Every parameter that determines the member, apart from the data."""
    return {
        "weights_sha256": weights_digest(),
        "magnification": asdict(MAGNIFICATION),
        **fixed_numbers(),
        "gate_folds": INNER,
        "gate_pulls": GATE_PULLS,
        "knot": KNOT,
        "excess": EXCESS,
        "naive_bayes": "count floored",
        "columns": COLUMNS,
    }


def load_imagenet(path: Path) -> ImageNetNetwork:
    """Load the network from a checkpoint, in evaluation mode."""
    network = ImageNetNetwork(ImageNetDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def _features(bags: Bags, means: Floats, patients: Indices | None = None, shown: Indices | None = None) -> Floats:
    """Clinical features of patients (default: all), and mean features of pictures (their own): (A, 4 + 1280)."""
    patients = np.arange(len(bags)) if patients is None else patients
    clinical = bent_features(torch.from_numpy(bags.clinical[patients].astype(np.float64))).numpy()
    return np.concatenate([clinical, means[patients if shown is None else shown]], axis=1)


def candidate(job: NestedJob) -> Candidate:
    """This member for the nested protocol."""
    means = embed_pictures(job.bags, job.run, job.device, MAGNIFICATION).means(job.bags)

    def predicted(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        del checkpoint
        return fit_and_predict(job.bags, means, training, asked)

    return Candidate("imagenet", numbers(), predicted)


def _train(job: MemberJob) -> None:
    train_imagenet(job.bags, job.folds, job.run, job.device)


TRAINING = MemberTraining(
    "imagenet",
    FOLDER,
    "imagenet",
    "Fit the ImageNet member: once per fold (5) and once on all patients.",
    _train,
    lambda run: [run / FOLDER / "full.safetensors", run / FOLDER / NUMBERS],
    candidate,
    lambda recipe, seed: numbers(),
)
