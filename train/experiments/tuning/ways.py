"""The ways to adapt the network, from one that does nothing; each is fitted on the training patients of a fold.

What labels have tuned, a regression is fitted on as well: but the features of its training patients have seen their
labels, and tell them better than those of new patients will.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from train.core.checkpoint import load_dimensions, load_weights, save_network
from train.core.fitting import Job
from train.data.bags import Bags
from train.data.whose_pictures import COLUMNS, NOBODY
from train.evaluation.nested import finetuned
from train.evaluation.nested.finetuned import FineTuned
from train.evaluation.nested.plan import Outer
from train.experiments.tuning.judges import (
    CELL_CLASSES,
    GATED,
    OWN_HEAD,
    REGRESSION,
    Columns,
    by_cell_classes,
    by_gate,
    by_regression,
)
from train.experiments.tuning.last_blocks import train_last_blocks
from train.experiments.tuning.recipe import LAST_BLOCKS, Clock, SimclrRecipe, TuningRecipe
from train.experiments.tuning.simclr import train_simclr
from train.members.embedding import FrozenBackbone, Magnification
from train.members.features import Features, embed_pictures, on_torch
from train.members.imagenet import MAGNIFICATION
from train.members.recipes import BayesRecipe, FineTunedRecipe

FROZEN = "frozen"


@dataclass(frozen=True)
class Setting:
    """What all ways share."""

    bags: Bags
    run: Path
    bayes: BayesRecipe
    seed: int
    device: torch.device
    clock: Clock


@dataclass(frozen=True)
class Judged:
    """Held-out patients of a fold by each judge, and how long the network was trained."""

    by: dict[str, Columns]
    seconds: float


@dataclass(frozen=True)
class Way:
    """A way to adapt the network."""

    name: str
    facts: dict[str, object]  # everything that decides the result, apart from the data
    judged: Callable[[Outer, Path], Judged]  # fold, checkpoint


def all_ways(setting: Setting, recipe: TuningRecipe) -> list[Way]:
    """From the one that does nothing; the cheap ones first, so that a call that is cut short leaves whole ways."""
    bags, device, clock = setting.bags, setting.device, setting.clock

    def last_blocks(fold: Outer, job: Job) -> FineTuned:
        return train_last_blocks(bags, fold.training, recipe.last_blocks, job, device, clock)

    def whole(fold: Outer, job: Job) -> FineTuned:
        return finetuned.train_network(bags, fold.training, recipe.whole, job, device, clock.check)

    return [
        _frozen(setting),
        _labelled(setting, "last blocks", recipe.last_blocks, last_blocks, blocks=LAST_BLOCKS),
        _simclr(setting, recipe.simclr),
        _labelled(setting, "fine-tuned", recipe.whole, whole),
    ]


def _frozen(setting: Setting) -> Way:
    def judged(fold: Outer, checkpoint: Path) -> Judged:
        del checkpoint
        features = embed_pictures(setting.bags, setting.run, setting.device, MAGNIFICATION)
        return Judged(_without_labels(setting, features, fold), 0.0)

    return Way(FROZEN, {"magnification": asdict(MAGNIFICATION), "bayes": asdict(setting.bayes)}, judged)


def _simclr(setting: Setting, recipe: SimclrRecipe) -> Way:
    def judged(fold: Outer, checkpoint: Path) -> Judged:
        start = time.monotonic()
        if not checkpoint.exists():
            job = Job(f"tuning {checkpoint.stem}", checkpoint, setting.seed)
            trained = train_simclr(setting.bags, fold.training, recipe, job, setting.device, setting.clock)
            save_network(checkpoint, trained.cpu(), trained.magnification)
        seconds = time.monotonic() - start
        backbone = FrozenBackbone(Magnification(**load_dimensions(checkpoint)))
        load_weights(checkpoint, backbone)
        return Judged(_without_labels(setting, embed(setting, backbone), fold), seconds)

    return Way("simclr", {"recipe": asdict(recipe), "bayes": asdict(setting.bayes)}, judged)


def _labelled(
    setting: Setting,
    name: str,
    recipe: FineTunedRecipe,
    train: Callable[[Outer, Job], FineTuned],
    **facts: object,
) -> Way:
    bags, device = setting.bags, setting.device

    def judged(fold: Outer, checkpoint: Path) -> Judged:
        start = time.monotonic()
        if not checkpoint.exists():
            network = train(fold, Job(f"tuning {checkpoint.stem}", checkpoint, setting.seed))
            save_network(checkpoint, network.cpu(), network.dimensions)
        seconds = time.monotonic() - start
        own = finetuned.predict(checkpoint, bags, fold.held_out, device)
        features = embed(setting, _backbone(finetuned.load_finetuned(checkpoint)))
        by = {
            OWN_HEAD: {column: own[column] for column in COLUMNS},
            REGRESSION: by_regression(bags, features, fold.training, fold.held_out),
        }
        return Judged(by, seconds)

    return Way(name, {"recipe": asdict(recipe), **facts}, judged)


def embed(setting: Setting, backbone: FrozenBackbone) -> Features:
    """Features of all pictures by a tuned backbone, and of a blank one."""
    look = on_torch(backbone.eval(), setting.device)
    return Features(look(setting.bags.crops), look(setting.bags.pictures(NOBODY))[0])


def _backbone(network: FineTuned) -> FrozenBackbone:
    backbone = FrozenBackbone(network.pictures.magnification)
    backbone.embedding.load_state_dict(network.pictures.embedding.state_dict())
    return backbone


def _without_labels(setting: Setting, features: Features, fold: Outer) -> dict[str, Columns]:
    bags, training, asked = setting.bags, fold.training, fold.held_out
    return {
        REGRESSION: by_regression(bags, features, training, asked),
        GATED: by_gate(bags, features, training, asked),
        CELL_CLASSES: by_cell_classes(bags, features, training, asked, setting.bayes, setting.seed),
    }
