"""The mixture of experts on the frozen backbone: an image expert, a clinical expert, and a gate.

As train/members/mixture_network.py (Sahasrabudhe et al. 2021; Collin & Le Chenadec, figure 1), with the frozen
backbone as the encoder. A 1x1 convolution to one map and its mean over the map are a linear function of the features,
which are the maps' means; so both of the head's convolutions are linear layers here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.core.arrays import Floats, Indices
from train.core.checkpoint import load_dimensions, load_weights, save_network
from train.core.curves import Curves, held_out_by
from train.core.files import write_table, write_text
from train.core.fitting import Job, fit
from train.core.seeds import seeded
from train.core.threads import on_one_thread
from train.data.bags import Bags
from train.data.inputs import ScaleClinical
from train.data.whose_pictures import COLUMNS, by_pictures
from train.members.candidate import Candidate
from train.members.embedding import FEATURES, weights_digest
from train.members.features import Features, embed_pictures
from train.members.gated import GatedOutput
from train.members.imagenet import MAGNIFICATION
from train.members.mixture import gate_loss, moe_loss, weighted_cross_entropy
from train.members.out_of_fold import ALL_OF_FOLD, batches_of
from train.members.recipes import ExpertsRecipe, Recipe
from train.members.training import NUMBERS, MemberJob, MemberTraining, NestedJob, as_text
from train.progress.report import steps

FOLDER = "moe"
OUTPUTS = ("probability", "image", "clinical", "gate")


@dataclass(frozen=True)
class ExpertsDimensions:
    """Sizes needed to rebuild the network from a checkpoint."""

    mixtures: int
    features: int = FEATURES


@dataclass(frozen=True)
class Batch:
    """A batch of patients."""

    means: Tensor  # (P, 1280) mean features of some of their pictures
    clinical: Tensor  # (P, 3) raw
    labels: Tensor  # (P,)
    patients: Indices  # (P,) their indices in the cohort


class Experts(nn.Module):
    """One mixture: mean features (P, 1280), raw clinical values (P, 3) -> GatedOutput, in float64 once trained."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = ScaleClinical(log_count=True)
        self.centre: Tensor
        self.width: Tensor
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("width", torch.ones(()))
        self.image_map = nn.Linear(features, 1)
        self.image_expert = nn.Linear(1, 2)
        self.clinical_expert = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), nn.Linear(2, 2))
        self.gate_map = nn.Linear(features, 1)
        self.gate = nn.Sequential(nn.Dropout(0.1), nn.Linear(1 + 3, 2))

    def fit_scales(self, means: Tensor, clinical: Tensor) -> None:
        """Set the scales of both inputs from the training patients.

        All features share one width. With their own, those that almost never fire would weigh most.
        """
        self.scale.fit(clinical)
        self.centre.copy_(means.mean(dim=0))
        self.width.copy_((means - self.centre).square().mean().sqrt().clamp_min(1e-6))

    def forward(self, means: Tensor, clinical: Tensor, dropout: float = 0.0) -> GatedOutput:
        scaled = self.scale(clinical)  # (P, 3)
        seen = functional.dropout((means - self.centre) / self.width, dropout, self.training)
        # In single precision, a probability near 1 holds too few digits of its odds to tell what a picture changes.
        precision = torch.float32 if self.training else torch.float64
        image = self.image_expert(self.image_map(seen)).softmax(1, precision)  # (P, 2)
        clinic = self.clinical_expert(scaled).softmax(1, precision)  # (P, 2)
        gate = self.gate(torch.cat([self.gate_map(seen).tanh(), scaled], dim=1)).softmax(1, precision)  # (P, 2)
        mixed = gate[:, :1] * image + gate[:, 1:] * clinic  # (P, 2)
        return GatedOutput(mixed[:, 1], image[:, 1], clinic[:, 1], gate[:, 0])


class Committee(nn.Module):
    """Several mixtures as one network: their outputs are averaged."""

    def __init__(self, dimensions: ExpertsDimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.each = nn.ModuleList(Experts(dimensions.features) for _ in range(dimensions.mixtures))

    def forward(self, means: Tensor, clinical: Tensor) -> GatedOutput:
        outputs = [mixture(means, clinical) for mixture in self.each]
        return GatedOutput(*(torch.stack(of).mean(0) for of in zip(*outputs, strict=True)))


@on_one_thread
def train_committee(
    bags: Bags, seen: Features, patients: Indices, recipe: ExpertsRecipe, seed: int, history: Path | None = None
) -> Committee:
    """Train the mixtures on some patients, in evaluation mode when returned; `history` gets the first one's curves."""
    committee = Committee(ExpertsDimensions(recipe.seeds, seen.pictures.shape[1]))
    mixtures = [
        _trained(bags, seen, patients, recipe, Job("experts", None, seed + number, history=None if number else history))
        for number in steps(range(recipe.seeds), "mixture")
    ]
    committee.each = nn.ModuleList(mixtures)
    return committee.eval()


def _trained(bags: Bags, seen: Features, patients: Indices, recipe: ExpertsRecipe, job: Job) -> Experts:
    seeded(job.seed, job.name)
    network = Experts(seen.pictures.shape[1])
    all_means = bags.means(seen.pictures)
    means = torch.from_numpy(all_means[patients].astype(np.float32))
    clinical, labels = torch.from_numpy(bags.clinical[patients]), torch.from_numpy(bags.labels[patients])
    network.fit_scales(means, clinical)
    malignant = float((labels == 0).sum() / (labels == 1).sum())  # both classes weigh alike
    clinical_side = [*network.clinical_expert.parameters(), *network.gate.parameters()]
    fast = {id(parameter) for parameter in clinical_side}
    held_out = held_out_by(bags.labels, patients) if job.history else patients[:0]

    def score(net: Experts, of: Indices) -> Floats:
        return judge(net, all_means[of], bags.clinical[of])["probability"]

    curves = Curves(bags.labels, held_out, score) if len(held_out) else None

    def loss(net: Experts, batch: Batch) -> Tensor:
        output = net(batch.means, batch.clinical, recipe.dropout)
        if curves:
            curves.record(batch.patients, output.probability)
        return moe_loss(output, batch.labels, recipe.expert_loss, malignant) + gate_loss(output.gate, recipe.gate_pull)

    trained = fit(
        network,
        lambda rng: _batches(bags, seen, patients, recipe, rng),
        loss,
        recipe.fit,
        job,
        parameters=[
            {"params": [one for one in network.parameters() if id(one) not in fast]},
            {"params": clinical_side, "lr": recipe.fit.learning_rate * recipe.clinical_rate, "weight_decay": 0.0},
        ],
        observe=curves.observe if curves else None,
    )
    _fit_clinical_side(trained, Batch(means, clinical, labels, patients), recipe, malignant)
    return trained


def _batches(
    bags: Bags, seen: Features, patients: Indices, recipe: ExpertsRecipe, rng: np.random.Generator
) -> Iterator[Batch]:
    """All patients once, in random order, with a sample of each patient's pictures."""
    for group in batches_of(rng.permutation(patients), recipe.batch_patients):
        chosen = bags.sample(group, recipe.images_per_patient, rng)
        means = np.stack([seen.pictures[of].mean(axis=0) for of in chosen])
        clinical, labels = torch.from_numpy(bags.clinical[group]), torch.from_numpy(bags.labels[group])
        yield Batch(torch.from_numpy(means), clinical, labels, group)


def _fit_clinical_side(network: Experts, batch: Batch, recipe: ExpertsRecipe, malignant: float) -> None:
    """Refit the clinical expert, then the gate, in place (train/members/mixture.py, fit_clinical_side, says why)."""
    network.eval()

    def clinical_loss() -> Tensor:
        return weighted_cross_entropy(network(batch.means, batch.clinical).clinical, batch.labels, malignant)

    def mixture_loss() -> Tensor:
        output: GatedOutput = network(batch.means, batch.clinical)
        mixture = weighted_cross_entropy(output.probability, batch.labels, malignant)
        return mixture + gate_loss(output.gate, recipe.gate_pull)

    for part, loss in ((network.clinical_expert, clinical_loss), (network.gate, mixture_loss)):
        optimizer = torch.optim.Adam(part.parameters(), lr=0.05, weight_decay=recipe.fit.weight_decay)
        for _ in range(recipe.late_steps):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def judge(committee: Committee | Experts, means: Floats, clinical: npt.NDArray[np.float32]) -> dict[str, Floats]:
    """OUTPUTS, each (P,), from mean features (P, 1280) and raw clinical values (P, 3)."""
    with torch.inference_mode():
        output: GatedOutput = committee(torch.from_numpy(means.astype(np.float32)), torch.from_numpy(clinical))
    return {name: getattr(output, name).double().numpy() for name in OUTPUTS}


def train(job: MemberJob) -> None:
    """Train what is missing in RUN/moe: out-of-fold predictions, and full.safetensors on all patients."""
    folder, bags = job.run / FOLDER, job.bags
    folder.mkdir(parents=True, exist_ok=True)
    mine = as_text(numbers(job.recipe, job.seed))
    table_path, numbers_path = folder / "out_of_fold.csv", folder / NUMBERS
    made = [table_path, numbers_path, *files(job.run)]
    if all(path.exists() for path in made) and numbers_path.read_text() == mine:
        return
    seen = embed_pictures(bags, job.run, job.device, MAGNIFICATION)
    means = bags.means(seen.pictures)
    columns = {name: np.empty(len(bags)) for name in OUTPUTS}
    for fold in steps(np.unique(job.folds).tolist(), "training", more=ALL_OF_FOLD):
        training, asked = np.flatnonzero(job.folds != fold), np.flatnonzero(job.folds == fold)
        history = folder / f"fold-{fold}.history.csv"
        committee = train_committee(bags, seen, training, job.recipe.experts, job.seed, history)
        for name, values in judge(committee, means[asked], bags.clinical[asked]).items():
            columns[name][asked] = values
    full = train_committee(bags, seen, np.arange(len(bags)), job.recipe.experts, job.seed)
    save_network(files(job.run)[0], full, full.dimensions)
    facts = {"patient_id": bags.patient_ids, "fold": job.folds, "label": bags.labels}
    write_table(table_path, pd.DataFrame({**facts, **columns, "pictures_only": columns["image"]}))
    write_text(numbers_path, mine)


def load_experts(run: Path) -> Committee:
    """The mixtures trained on all patients, in evaluation mode."""
    path = files(run)[0]
    committee = Committee(ExpertsDimensions(**load_dimensions(path)))
    load_weights(path, committee)
    return committee


def files(run: Path) -> Sequence[Path]:
    """What export reads: network, numbers."""
    return [run / FOLDER / "full.safetensors", run / FOLDER / NUMBERS]


def numbers(recipe: Recipe, seed: int) -> dict[str, object]:
    """Everything the member depends on, apart from the data."""
    return {
        "weights_sha256": weights_digest(),
        "magnification": asdict(MAGNIFICATION),
        "experts": asdict(recipe.experts),
        "seed": seed,
    }


def candidate(job: NestedJob) -> Candidate:
    """This member for the nested protocol."""
    bags, recipe = job.bags, job.recipe.experts
    seen = embed_pictures(bags, job.run, job.device, MAGNIFICATION)
    means = seen.means(bags)

    def predicted(training: Indices, asked: Indices, checkpoint: Path) -> dict[str, Floats]:
        del checkpoint
        committee = train_committee(bags, seen, training, recipe, job.seed)

        def probability(shown: Indices) -> Floats:
            return judge(committee, means[shown], bags.clinical[asked])["probability"]

        return by_pictures(asked, bags.patient_ids, probability)

    return Candidate("moe", {**numbers(job.recipe, job.seed), "columns": COLUMNS}, predicted)


TRAINING = MemberTraining(
    "moe",
    FOLDER,
    "moe",
    "Train the mixture of experts on the frozen backbone: once per fold (5) and once on all patients.",
    train,
    files,
    candidate,
    numbers,
    spread_of={"gate": "moe gate"},
)
