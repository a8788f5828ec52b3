"""Networks that are trained on bags: four from torchmil, and Deep Sets. One recipe for all of them.

Each step sees one patient with all pictures, without padding: the maximum of torchmil 1.0's DSMIL does not know its
mask. The schedule is fixed, and nothing is stopped early. Malignant and reactive patients weigh alike together.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from infer.errors import UsageError
from train.core.arrays import Floats, Indices, Labels
from train.core.seeds import seeded
from train.core.threads import on_one_thread
from train.experiments.methods.method import Fit, Judge, Method, View

LIBRARY, VERSION = "torchmil", "1.0.2"


@dataclass(frozen=True)
class NetworkRecipe:
    """Hyperparameters of all networks; set before any result of theirs was seen."""

    epochs: int = 20
    learning_rate: float = 3e-4  # of AdamW; falls to 0 by a cosine
    weight_decay: float = 1e-2
    hidden: int = 64  # what the first layer makes of a picture's components
    attention: int = 64
    dropout: float = 0.25  # after the first layer
    sampled: int = 8  # CLAM: pictures with the highest and lowest attention that get pseudo-labels
    heads: int = 4  # TransMIL
    landmarks: int = 32  # TransMIL


RECIPE = NetworkRecipe()


class BagNetwork(nn.Module):
    """A network of bags, with torchmil's interface."""

    def compute_loss(self, Y: Tensor, X: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: N803
        """Labels (B,), bags (B, n, C) -> logits (B,) and the parts of the loss, which are added."""
        logits = self.predict(X)
        return logits, {"loss": functional.binary_cross_entropy_with_logits(logits, Y)}

    def predict(self, X: Tensor, return_inst_pred: bool = False) -> Tensor:  # noqa: N803
        """Bags (B, n, C) -> logits (B,)."""
        raise NotImplementedError


class DeepSets(BagNetwork):
    """A layer for each picture, the mean over pictures, two layers (Zaheer et al. 2017)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.pictures = first_layer(inputs)
        self.patient = nn.Sequential(first_layer(RECIPE.hidden), nn.Linear(RECIPE.hidden, 1))

    def predict(self, X: Tensor, return_inst_pred: bool = False) -> Tensor:  # noqa: N803
        del return_inst_pred
        return cast("Tensor", self.patient(self.pictures(X).mean(dim=1)).squeeze(-1))


Make = Callable[[int], BagNetwork]  # number of inputs -> a network with random weights


def first_layer(inputs: int) -> nn.Sequential:
    """What each network makes of a picture before pooling."""
    return nn.Sequential(nn.Linear(inputs, RECIPE.hidden), nn.ReLU(), nn.Dropout(RECIPE.dropout))


def from_torchmil(name: str, **options: Any) -> Make:
    """A network of the library, made when it is needed: the library is an extra."""

    def make(inputs: int) -> BagNetwork:
        network = getattr(importlib.import_module(f"{LIBRARY}.models"), name)
        return cast("BagNetwork", network(in_shape=(inputs,), feat_ext=first_layer(inputs), **options))

    return make


class SmoothHinge(nn.Module):
    """CLAM's loss of pseudo-labelled pictures: the smooth top-1 hinge of Berrada et al. 2018, with margin 1.

    torchmil 1.0.2 has it, but sums over pictures instead of classes, and fails where a picture's scores are far apart.
    """

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Scores (n, 2), labels (n, 1) -> the mean loss."""
        own = labels.long()
        margins = torch.ones_like(scores).scatter(1, own, 0.0)
        return (scores + margins - scores.gather(1, own)).logsumexp(dim=1).mean()


def clam(inputs: int) -> BagNetwork:
    """torchmil's CLAM with one attention branch, and the loss as it was published."""
    options = {"att_dim": RECIPE.attention, "gated": True, "k_sample": RECIPE.sampled}
    network = from_torchmil("CLAM_SB", **options)(inputs)
    network.inst_loss_fn = SmoothHinge()
    return network


def demand_torchmil(methods: tuple[Method, ...]) -> None:
    """Refuse methods that need the library if it is not installed.

    Raises:
        UsageError: it is missing.
    """
    names = [method.name for method in methods if method.from_torchmil]
    if names and find_spec(LIBRARY) is None:
        install = f"pip install {LIBRARY}=={VERSION}"
        raise UsageError(f"{', '.join(names)}: need {LIBRARY}. Run `{install}`, or choose others with --method")


def library_version() -> str:
    """The installed library's version; empty if there is none."""
    return version(LIBRARY) if find_spec(LIBRARY) else ""


def trained(make: Make, recipe: NetworkRecipe = RECIPE) -> Fit:
    """Train a network by a recipe."""

    @on_one_thread
    def fit(view: View, training: Indices, labels: Labels, seed: int) -> Judge:
        rng = seeded(seed, "methods")
        network = make(view.pictures.shape[1])
        optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
        bags = [torch.from_numpy(view.of(patient))[None] for patient in training]
        targets = torch.from_numpy(labels).float()
        weights = len(labels) / (2 * np.bincount(labels, minlength=2)[labels])
        network.train()
        for _ in range(recipe.epochs):
            for index in rng.permutation(len(training)):
                _, parts = network.compute_loss(targets[index : index + 1], bags[index])
                loss = weights[index] * torch.stack(list(parts.values())).sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            schedule.step()
        network.eval()
        return lambda shown: _scores(network, view, shown)

    return fit


@on_one_thread
def _scores(network: BagNetwork, view: View, shown: Indices) -> Floats:
    with torch.inference_mode():
        found = [network.predict(torch.from_numpy(view.of(one))[None], return_inst_pred=False) for one in shown]
    return np.asarray(torch.cat(found).double().numpy())


def _network(name: str, make: Make, *, library: bool = True) -> Method:
    facts = asdict(RECIPE) | ({LIBRARY: library_version()} if library else {})
    return Method(name, trained(make), facts, from_torchmil=library)


NETWORKS = (
    _network("ABMIL", from_torchmil("ABMIL", att_dim=RECIPE.attention, gated=True)),
    _network("DSMIL", from_torchmil("DSMIL", att_dim=RECIPE.attention, nonlinear_q=True)),
    _network("CLAM-SB", clam),
    _network(
        "TransMIL",
        from_torchmil("TransMIL", att_dim=RECIPE.hidden, n_heads=RECIPE.heads, n_landmarks=RECIPE.landmarks),
    ),
    _network("Deep Sets", DeepSets, library=False),
)
