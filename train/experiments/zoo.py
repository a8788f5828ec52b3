"""Networks that the report compared with its baseline (sections 2.1 and 2.3), trained only for comparison.

One table of networks, one fold (the report's 80/20 split), the same recipe for all of them; none is exported. A network
either classifies single pictures, and a patient's probability is the mean over them, or pools a patient's pictures
first and classifies the patient. Both concatenate the clinical values to the features before the last layers, as the
baseline does.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18, vgg

from infer.errors import UsageError
from train.core.arrays import Floats, Indices
from train.core.checkpoint import load_dimensions, load_weights, save_network
from train.core.curves import Curves
from train.core.files import write_table, write_text
from train.core.fitting import FitRecipe, Job, fit, mixed_precision
from train.core.seeds import seeded
from train.data.augment import turn_and_flip
from train.data.bags import Bags, in_batches
from train.data.inputs import Normalise, ScaleClinical
from train.evaluation.report_protocol import PICKED, Division, divisions
from train.members.baseline import Baseline, BaselineDimensions
from train.members.mixture_network import Encoder, bag_means
from train.members.out_of_fold import batches_of, class_weights
from train.members.recipes import ALL_IMAGES

CLINICAL = 3  # sex, count, age
UNET_WIDTHS = (16, 32, 64, 128, 256)  # a quarter of the paper's
ATTENTION = 128  # hidden units of the attention, as in the code of Ilse et al.


@dataclass(frozen=True)
class ZooRecipe:
    """Hyperparameters shared by all networks of the table, so that only the architecture differs."""

    name: str
    fit: FitRecipe
    batch_images: int = 128  # for networks that classify pictures; report, table 1
    batch_patients: int = 8  # for networks that classify patients; report, table 1
    images_per_patient: int = ALL_IMAGES
    log_count: bool = False
    turns: bool = True  # flips and quarter turns


FULL = ZooRecipe("full", FitRecipe(epochs=200, learning_rate=1e-3))  # as the report's baseline; for a GPU
TINY = ZooRecipe("tiny", FitRecipe(epochs=4, learning_rate=3e-4), images_per_patient=8, log_count=True)  # for a CPU
RECIPES = {recipe.name: recipe for recipe in (FULL, TINY)}


@dataclass(frozen=True)
class Parts:
    """The modules of one network."""

    features: nn.Module  # normalised pixels (N, 3, 112, 112) -> (N, D)
    head: nn.Module  # features and scaled clinical values, (N, D + 3) or (P, D + 3) -> logits, one row per row
    pooling: nn.Module | None = None  # features (N, D), patient (N,), P -> (P, D); None: pictures classified singly


@dataclass(frozen=True)
class ZooDimensions:
    """What is needed to rebuild the network from a checkpoint."""

    name: str  # name in NETWORKS
    log_count: bool = False


class ZooNetwork(nn.Module):
    """A network of the table: pictures and raw clinical values -> logits per picture or per patient."""

    def __init__(self, dimensions: ZooDimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        parts = NETWORKS[dimensions.name]()
        self.normalise = Normalise()
        self.scale = ScaleClinical(dimensions.log_count)
        self.features = parts.features
        self.pooling = parts.pooling
        self.head = parts.head

    @property
    def family(self) -> str:
        """`image`: logits per picture; `bag`: logits per patient."""
        return "bag" if self.pooling else "image"

    def forward(self, images: Tensor, patient: Tensor, clinical: Tensor) -> Tensor:
        """Logits per picture (N, 2), or per patient (P, 2) in the bag family.

        Args:
            images: (N, 112, 112, 3) uint8.
            patient: (N,) int64, row of `clinical` that belongs to each picture; every row has at least one picture.
            clinical: (P, 3) float32, raw clinical values.
        """
        return self.judge(self.embed(images), patient, clinical)

    def embed(self, images: Tensor) -> Tensor:
        """Features of each picture: (N, D)."""
        return self.features(self.normalise(images))  # type: ignore[no-any-return]

    def judge(self, features: Tensor, patient: Tensor, clinical: Tensor) -> Tensor:
        """The same logits as forward, from the features (N, D)."""
        scaled = self.scale(clinical)  # (P, 3)
        if self.pooling:
            joined = torch.cat([self.pooling(features, patient, len(clinical)), scaled], dim=1)  # (P, D + 3)
        else:
            joined = torch.cat([features, scaled[patient]], dim=1)  # (N, D + 3)
        return self.head(joined)  # type: ignore[no-any-return]


class MeanPooling(nn.Module):
    """Mean of the features over each patient's pictures."""

    def forward(self, features: Tensor, patient: Tensor, patients: int) -> Tensor:
        return bag_means(features[:, :, None, None], patient, patients).flatten(1)  # (N, D, 1, 1) -> (P, D)


class GatedAttention(nn.Module):
    """Gated attention pooling: Ilse, Tomczak & Welling 2018, equations 7 and 9."""

    def __init__(self, inputs: int, hidden: int = ATTENTION) -> None:
        super().__init__()
        self.signal = nn.Linear(inputs, hidden, bias=False)  # V
        self.gate = nn.Linear(inputs, hidden, bias=False)  # U
        self.score = nn.Linear(hidden, 1, bias=False)  # w

    def forward(self, features: Tensor, patient: Tensor, patients: int) -> Tensor:
        """Weighted sum of each patient's features: (N, D), (N,) int64 below `patients` -> (patients, D)."""
        weighted = self.weights(features, patient, patients)[:, None] * features  # (N, D)
        return features.new_zeros(patients, features.shape[1]).index_add(0, patient, weighted)

    def weights(self, features: Tensor, patient: Tensor, patients: int) -> Tensor:
        """Attention weight of each picture, a softmax over its patient's pictures: (N,), summing to 1 per patient."""
        score: Tensor = self.score(self.signal(features).tanh() * self.gate(features).sigmoid()).squeeze(1)  # (N,)
        # Subtracting a constant does not change the softmax; a patient's highest score keeps the exponential finite.
        still = score.detach()
        highest = still.new_full((patients,), -torch.inf).scatter_reduce(0, patient, still, "amax")  # (P,)
        exponential = (score - highest[patient]).exp()
        total = exponential.new_zeros(patients).index_add(0, patient, exponential)  # (P,)
        return exponential / total[patient]


def _baseline() -> Parts:
    model = Baseline(BaselineDimensions())
    return Parts(nn.Sequential(model.convolutions, nn.Flatten()), model.classifier)


def _vgg(configuration: str) -> Parts:
    """VGG's convolutions (Simonyan & Zisserman 2015; D has 16 layers, E 19), global average pooling, one linear layer.

    VGG's three fully connected layers expect the 7 x 7 maps of a 224-pixel picture; ours has 3 x 3. They also hold 124
    of VGG-16's 138 million weights: half a gigabyte, learnt from 130 patients. Batch norm is torchvision's variant:
    without it the paper had to initialise its deep networks with the weights of a shallower one.
    """
    convolutions = vgg.make_layers(vgg.cfgs[configuration], batch_norm=True)  # the layers of vgg16_bn, weights=None
    return Parts(_averaged(convolutions), nn.Linear(512 + CLINICAL, 2))


def _resnet() -> Parts:
    """torchvision's ResNet-18 (He et al. 2016) up to its average pooling, trained from scratch."""
    model = resnet18(weights=None)
    model.fc = nn.Identity()
    return Parts(model, nn.Linear(512 + CLINICAL, 2))


def _unet() -> Parts:
    """The contracting path of a narrow U-Net (Ronneberger, Fischer & Brox 2015), averaged over its deepest maps.

    Five levels of two 3x3 convolutions with max-pool between, channels doubling at each level: the mixture's encoder,
    which has the same structure, with U-Net's widths. Unlike in the paper the convolutions are padded (without padding
    112 pixels are too few for five levels) and use batch norm.
    """
    return Parts(_averaged(Encoder(UNET_WIDTHS).blocks), nn.Linear(UNET_WIDTHS[-1] + CLINICAL, 2))


def _pooled(pooling: Callable[[int], nn.Module]) -> Parts:
    """The baseline, pooled after its first fully connected layer, where each picture is a vector."""
    dimensions = BaselineDimensions()
    width, hidden = dimensions.hidden
    first = nn.Linear(dimensions.channels[1] * 25 * 25, width)
    vectors = nn.Sequential(Baseline(dimensions).convolutions, nn.Flatten(), first, nn.ReLU(inplace=True))
    head = nn.Sequential(nn.Linear(width + CLINICAL, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 2))
    return Parts(vectors, head, pooling(width))


def _averaged(convolutions: nn.Module) -> nn.Module:
    """Global average pooling after convolutions: (N, C, h, w) -> (N, C)."""
    return nn.Sequential(convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())


NETWORKS: dict[str, Callable[[], Parts]] = {
    "baseline": _baseline,
    "vgg-16": lambda: _vgg("D"),
    "vgg-19": lambda: _vgg("E"),
    "resnet-18": _resnet,
    "unet-encoder": _unet,
    "attention-pooling": lambda: _pooled(GatedAttention),
    "mean-pooling": lambda: _pooled(lambda width: MeanPooling()),
}


@dataclass(frozen=True)
class ZooBatch:
    """A batch of pictures; shapes of the first three fields as in ZooNetwork.forward."""

    images: Tensor
    patient: Tensor
    clinical: Tensor
    labels: Tensor  # label of each row of logits: (N,) or, in the bag family, (P,)
    patients: Indices  # patient of each row of logits, as index in the cohort


def compare(
    bags: Bags, run: Path, recipe: ZooRecipe, seed: int, device: torch.device, names: Sequence[str] = tuple(NETWORKS)
) -> pd.DataFrame:
    """Train the given networks where missing, and return a table of all finished networks; also in RUN/zoo/zoo.csv.

    One row per network: network, family (image or bag), parameters, epochs, recipe, validation_balanced_accuracy (with
    the last epoch's weights), validation_auc (with the weights averaged over the last epochs, as in the checkpoint),
    best_epoch_balanced_accuracy_optimistic (the epoch is selected on the same patients), seconds_per_epoch (median,
    with validation), pictures_per_second (median, training only).

    Raises:
        UsageError: a name is not in NETWORKS, or RUN/zoo was trained with another recipe or seed.
        TrainingError: a loss is not finite.
    """
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        raise UsageError(f"unknown network {', '.join(unknown)}. Choose from {', '.join(NETWORKS)}")
    folder = run / "zoo"
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, recipe, seed)
    split = divisions(bags)[0]
    for name in names:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            job = Job(f"zoo {name}", path, seed)
            network = train_network(name, bags, split, recipe, job, device).cpu()
            save_network(path, network, network.dimensions)
        if not path.with_suffix(".csv").exists():
            write_table(path.with_suffix(".csv"), pd.DataFrame([_row(path, bags, split, recipe, device)]))
    finished = [folder / f"{name}.csv" for name in NETWORKS if (folder / f"{name}.csv").exists()]
    parts = [pd.read_csv(path) for path in finished]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    write_table(folder / "zoo.csv", table)
    return table


def train_network(
    name: str, bags: Bags, division: Division, recipe: ZooRecipe, job: Job, device: torch.device
) -> ZooNetwork:
    """Train a network of the table on a division's training patients, scoring its validation patients every epoch."""
    seeded(job.seed, job.name)
    network = ZooNetwork(ZooDimensions(name, recipe.log_count)).to(device)
    network.scale.fit(torch.from_numpy(bags.clinical[division.training]).to(device))
    weights = class_weights(device)
    curves: Curves[ZooNetwork] = Curves(bags.labels, division.validation, lambda net, of: score(net, bags, of, device))
    draw = _bag_batches if network.family == "bag" else _image_batches
    begun = 0.0

    def batches(rng: np.random.Generator) -> Iterator[ZooBatch]:
        nonlocal begun
        begun = time.perf_counter()
        return draw(bags, division.training, recipe, rng, device)

    def loss(net: ZooNetwork, batch: ZooBatch) -> Tensor:
        with mixed_precision(device):
            features = net.embed(batch.images)
        logits = net.judge(features.float(), batch.patient, batch.clinical)
        curves.record(batch.patients, logits.softmax(1)[:, 1])
        return functional.cross_entropy(logits, batch.labels, weights)

    def observe(net: ZooNetwork, epoch: int) -> dict[str, float]:
        seconds = time.perf_counter() - begun  # taken before validation
        return curves.observe(net, epoch) | {"training_seconds": seconds}

    return fit(network, batches, loss, recipe.fit, job, observe=observe)


def load_zoo(path: Path) -> ZooNetwork:
    """Load the network from a checkpoint, in evaluation mode."""
    network = ZooNetwork(ZooDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def score(network: ZooNetwork, bags: Bags, patients: Indices, device: torch.device) -> Floats:
    """Probability of malignant from all pictures of each patient: (len(patients),). Needs evaluation mode."""
    result = np.empty(len(patients))
    with torch.inference_mode():
        for row, patient in enumerate(patients):
            crops = bags.pictures(patient)
            features = torch.cat([network.embed(images.to(device)) for images in in_batches(crops)])  # (n, D)
            clinical = torch.from_numpy(bags.clinical[patient : patient + 1]).to(device)
            owner = torch.zeros(len(crops), dtype=torch.int64, device=device)
            logits = network.judge(features, owner, clinical)  # (n, 2) or (1, 2)
            result[row] = logits.softmax(1)[:, 1].double().mean().item()
    return result


def _image_batches(
    bags: Bags, patients: Indices, recipe: ZooRecipe, rng: np.random.Generator, device: torch.device
) -> Iterator[ZooBatch]:
    """Batches of pictures of all patients, shuffled, each picture with its own row of clinical values."""
    chosen = np.concatenate(bags.sample(patients, recipe.images_per_patient, rng))
    owner = bags.patient_of_image()
    for indices in batches_of(rng.permutation(chosen), recipe.batch_images):
        yield _batch(bags, indices, np.arange(len(indices)), owner[indices], recipe, device)


def _bag_batches(
    bags: Bags, patients: Indices, recipe: ZooRecipe, rng: np.random.Generator, device: torch.device
) -> Iterator[ZooBatch]:
    """Batches of whole patients, with the pictures of each patient in sequence."""
    for group in batches_of(rng.permutation(patients), recipe.batch_patients):
        chosen = bags.sample(group, recipe.images_per_patient, rng)
        row = np.repeat(np.arange(len(group)), [len(part) for part in chosen])
        yield _batch(bags, np.concatenate(chosen), row, group, recipe, device)


def _batch(
    bags: Bags, indices: Indices, row: Indices, patients: Indices, recipe: ZooRecipe, device: torch.device
) -> ZooBatch:
    images = bags.crops[torch.from_numpy(indices)].to(device)
    return ZooBatch(
        turn_and_flip(images) if recipe.turns else images,
        torch.from_numpy(row).to(device),
        torch.from_numpy(bags.clinical[patients]).to(device),
        torch.from_numpy(bags.labels[patients]).to(device),
        patients,
    )


def _row(path: Path, bags: Bags, split: Division, recipe: ZooRecipe, device: torch.device) -> dict[str, object]:
    """A trained network's row of the table, from its checkpoint and the history beside it."""
    network = load_zoo(path).to(device)
    history = pd.read_csv(path.with_suffix(".history.csv"))
    counts = np.diff(bags.offsets)[split.training]
    pictures = int(np.minimum(counts, recipe.images_per_patient or counts).sum())
    accuracy = history[PICKED].to_numpy()
    return {
        "network": network.dimensions.name,
        "family": network.family,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "epochs": len(history),
        "recipe": recipe.name,
        "validation_balanced_accuracy": float(accuracy[-1]),
        "validation_auc": roc_auc_score(bags.labels[split.validation], score(network, bags, split.validation, device)),
        "best_epoch_balanced_accuracy_optimistic": float(accuracy.max()),
        "seconds_per_epoch": float(history["seconds"].median()),
        "pictures_per_second": round(pictures / float(history["training_seconds"].median()), 1),
    }


def _claim(folder: Path, recipe: ZooRecipe, seed: int) -> None:
    """Record recipe and seed of a folder, or refuse others: rows of different recipes would not be comparable."""
    path, facts = folder / "recipe.json", json.dumps({**asdict(recipe), "seed": seed}, indent=1)
    if not path.exists():
        write_text(path, facts)
    elif path.read_text() != facts:
        raise UsageError(f"{folder}: trained with another recipe or seed, see {path.name}. Choose another run folder")
