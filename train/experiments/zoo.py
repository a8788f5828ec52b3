"""What the report tried around its baseline (sections 2.1 and 2.3): trained for comparison only, never exported.

One table of networks, one fold (the report's 80/20 split), one recipe for all of them. A network either judges single
pictures, and a patient's probability is their mean, or pools a patient's pictures first and judges the patient. Both
join the clinical values to the features before the last layers, as the baseline does.
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
from train.core.checkpoint import load_dimensions, load_weights, save_network
from train.core.curves import Curves, Floats, Indices
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
ATTENTION = 128  # hidden units of the attention, as many as in Ilse et al.'s own code


@dataclass(frozen=True)
class ZooRecipe:
    """How every network of the table is fitted, so that they differ in nothing else."""

    name: str
    fit: FitRecipe
    batch_images: int = 128  # of networks that judge pictures; report, table 1
    batch_patients: int = 8  # of networks that judge bags; report, table 1
    images_per_patient: int = ALL_IMAGES
    log_count: bool = False
    turns: bool = True  # flips and quarter turns


FULL = ZooRecipe("full", FitRecipe(epochs=200, learning_rate=1e-3))  # the report's baseline; for a GPU
TINY = ZooRecipe("tiny", FitRecipe(epochs=4, learning_rate=3e-4), images_per_patient=8, log_count=True)  # two cores
RECIPES = {recipe.name: recipe for recipe in (FULL, TINY)}


@dataclass(frozen=True)
class Parts:
    """What one network is made of."""

    features: nn.Module  # normalised pixels (N, 3, 112, 112) -> (N, D)
    head: nn.Module  # features and scaled clinical values, (N, D + 3) or (P, D + 3) -> logits of as many rows
    pooling: nn.Module | None = None  # features (N, D), patient (N,), P -> (P, D); none: pictures are judged singly


@dataclass(frozen=True)
class ZooDimensions:
    """What a checkpoint needs to rebuild its network."""

    name: str  # in NETWORKS
    log_count: bool = False


class ZooNetwork(nn.Module):
    """A network of the table: pictures and raw clinical values -> logits of each picture or of each patient."""

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
        """`image`: logits are of pictures; `bag`: of patients."""
        return "bag" if self.pooling else "image"

    def forward(self, images: Tensor, patient: Tensor, clinical: Tensor) -> Tensor:
        """Logits of the pictures (N, 2), or of the patients (P, 2) in the bag family.

        Args:
            images: (N, 112, 112, 3) uint8.
            patient: (N,) int64, the row of `clinical` that goes with each picture; every row has one at least.
            clinical: (P, 3) float32, raw.
        """
        return self.judge(self.embed(images), patient, clinical)

    def embed(self, images: Tensor) -> Tensor:
        """Features of each picture: (N, D)."""
        return self.features(self.normalise(images))  # type: ignore[no-any-return]

    def judge(self, features: Tensor, patient: Tensor, clinical: Tensor) -> Tensor:
        """What forward gives, from the features (N, D)."""
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
        """Attention of each picture, a softmax within its patient: (N,), each patient's sum to 1."""
        score: Tensor = self.score(self.signal(features).tanh() * self.gate(features).sigmoid()).squeeze(1)  # (N,)
        # The softmax is the same whatever is subtracted; a patient's highest score keeps the exponential finite.
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

    VGG's own three fully connected layers want the 7 x 7 maps of a 224-pixel picture, where ours leaves 3 x 3, and
    hold 124 of VGG-16's 138 million weights: half a gigabyte to store, learnt from 130 patients. Batch norm is
    torchvision's variant: without it the paper had to start its deep networks from a shallower one's weights.
    """
    convolutions = vgg.make_layers(vgg.cfgs[configuration], batch_norm=True)  # the layers of vgg16_bn, weights=None
    return Parts(_averaged(convolutions), nn.Linear(512 + CLINICAL, 2))


def _resnet() -> Parts:
    """ResNet-18 (He et al. 2016): torchvision's, from random weights, up to its average pooling."""
    model = resnet18(weights=None)
    model.fc = nn.Identity()
    return Parts(model, nn.Linear(512 + CLINICAL, 2))


def _unet() -> Parts:
    """The contracting path of a U-Net (Ronneberger, Fischer & Brox 2015), slim, averaged over its deepest maps.

    Five levels of two 3x3 convolutions, max-pool between, twice as many channels each: the mixture's encoder, which
    is built like it, with U-Net's widths. Unlike the paper's the convolutions are padded (unpadded, 112 pixels do not
    last for five levels) and normalised by batch.
    """
    return Parts(_averaged(Encoder(UNET_WIDTHS).blocks), nn.Linear(UNET_WIDTHS[-1] + CLINICAL, 2))


def _pooled(pooling: Callable[[int], nn.Module]) -> Parts:
    """The baseline, pooled after its first fully connected layer, where each picture has become one vector."""
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
    """Pictures of an epoch; the first three as ZooNetwork.forward takes them."""

    images: Tensor
    patient: Tensor
    clinical: Tensor
    labels: Tensor  # of each row of logits: (N,) or, in the bag family, (P,)
    patients: Indices  # the same rows' patients, by their indices in the cohort


def compare(
    bags: Bags, run: Path, recipe: ZooRecipe, seed: int, device: torch.device, names: Sequence[str] = tuple(NETWORKS)
) -> pd.DataFrame:
    """Train what is missing of some networks and return all that are finished, kept in RUN/zoo/zoo.csv.

    A row a network: network, family (image or bag), parameters, epochs, recipe, validation_balanced_accuracy (of the
    last epoch's weights), validation_auc (of the weights averaged over the last epochs, which the checkpoint holds),
    best_epoch_balanced_accuracy_optimistic (its epoch is picked on the patients whose figure it is),
    seconds_per_epoch (median, validation included), pictures_per_second (median, of training alone).

    Raises:
        UsageError: a name is not in NETWORKS, or RUN/zoo was trained by another recipe or seed.
        TrainingError: a loss is not finite.
    """
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        raise UsageError(f"no network is called {', '.join(unknown)}. Choose of {', '.join(NETWORKS)}")
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
    """Train a network of the table on a division's training patients, its validation patients watched by epoch."""
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
        seconds = time.perf_counter() - begun  # before the validation patients are scored
        return curves.observe(net, epoch) | {"training_seconds": seconds}

    return fit(network, batches, loss, recipe.fit, job, observe=observe)


def load_zoo(path: Path) -> ZooNetwork:
    """The network of a checkpoint, in evaluation mode."""
    network = ZooNetwork(ZooDimensions(**load_dimensions(path)))
    load_weights(path, network)
    return network


def score(network: ZooNetwork, bags: Bags, patients: Indices, device: torch.device) -> Floats:
    """Probability of malignant on all pictures of each patient: (len(patients),); the network is in evaluation mode."""
    result = np.empty(len(patients))
    with torch.inference_mode():
        for row, patient in enumerate(patients):
            crops = bags.crops[int(bags.offsets[patient]) : int(bags.offsets[patient + 1])]
            features = torch.cat([network.embed(images.to(device)) for images in in_batches(crops)])  # (n, D)
            clinical = torch.from_numpy(bags.clinical[patient : patient + 1]).to(device)
            owner = torch.zeros(len(crops), dtype=torch.int64, device=device)
            logits = network.judge(features, owner, clinical)  # (n, 2) or (1, 2)
            result[row] = logits.softmax(1)[:, 1].double().mean().item()
    return result


def _image_batches(
    bags: Bags, patients: Indices, recipe: ZooRecipe, rng: np.random.Generator, device: torch.device
) -> Iterator[ZooBatch]:
    """Pictures of all patients mixed, each with a row of clinical values of its own."""
    chosen = np.concatenate(bags.sample(patients, recipe.images_per_patient, rng))
    owner = bags.patient_of_image()
    for indices in batches_of(rng.permutation(chosen), recipe.batch_images):
        yield _batch(bags, indices, np.arange(len(indices)), owner[indices], recipe, device)


def _bag_batches(
    bags: Bags, patients: Indices, recipe: ZooRecipe, rng: np.random.Generator, device: torch.device
) -> Iterator[ZooBatch]:
    """Whole patients, their pictures one after the other."""
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
    """Note what trains in a folder: rows of other recipes would stand beside each other as if they were comparable."""
    path, facts = folder / "recipe.json", json.dumps({**asdict(recipe), "seed": seed}, indent=1)
    if not path.exists():
        write_text(path, facts)
    elif path.read_text() != facts:
        raise UsageError(f"{folder}: was trained by another recipe or seed, see {path.name}. Choose another run folder")
