"""Fits the models on every size of the training set, nested, and says what each size brought.

A size's figures are found as those of the nested protocol are: calibration, weights and thresholds are fitted on inner
folds of the patients that the size has. At 100% they are the nested protocol's own, and its cached predictions serve.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from train.core.arrays import Booleans
from train.core.fitting import TrainingError
from train.core.metrics import GREY_ZONE_COUNT
from train.core.performance import FIGURES, Estimate, Figure, Predictions, estimate, paired_difference, resamples
from train.data.bags import Bags
from train.evaluation.learning_curve.sizes import Size, sizes_of
from train.evaluation.nested.evaluate import FOLDER as NESTED
from train.evaluation.nested.models import clinical_logistic
from train.evaluation.nested.plan import Predictor, all_tasks, outer_folds
from train.evaluation.nested.protocol import gather
from train.evaluation.nested.stacking import Stack
from train.members import registry
from train.members.candidate import Model
from train.members.recipes import Recipe
from train.members.training import NestedJob

LOG = logging.getLogger("lympho")

QUICK = ("scan", "imagenet")  # of two seconds a training, or less
TOGETHER = "ensemble of these"
NOTHING = Estimate(np.nan, np.nan, np.nan)

Found = dict[str, list[tuple[Size, list[Predictions]]]]  # by model: its sizes, smallest first, one of each repeat


@dataclass
class Curve:
    """The table, and what it lacks."""

    table: pd.DataFrame
    sizes: Sequence[Size]
    left_out: list[str] = field(default_factory=list)  # sizes and models that could not be measured, and why


def learning_curve(
    bags: Bags,
    run: Path,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    repeats: int,
    names: Sequence[str] = (),
) -> Curve:
    """Fit the members `names` (default: QUICK), and sex, age and count alone, on every size.

    The table has the columns: model; share; patients, the mean number of an outer fold's training patients; figure
    (auc, grey_zone_auc, balanced_accuracy); value, the mean over repeats; low and high, a 95% interval by patient
    bootstrap; brought, brought_low and brought_high: the figure less that of the next smaller size, paired; repeats;
    and rose_in, how many of these have a higher figure than at the next smaller size.

    Raises:
        UsageError: there are too few patients for two sizes.
    """
    outers = outer_folds(bags.labels, seed, repeats, bags.centres)
    sizes, small = sizes_of(bags.labels, outers, seed, bags.centres)
    left_out = [f"{share:.0%}: a training fold would have fewer than 5 of a class" for share in small]
    job = NestedJob(bags, run, recipe, seed, device)
    wanted = [member for member in registry.MEMBERS if member.name in (names or QUICK)]
    models: list[Model] = [clinical_logistic(bags), *(member.candidate(job) for member in wanted)]
    predictor = Predictor(bags, run / NESTED)
    found: Found = {}
    for size in sizes:
        trained = []
        for model in models:
            LOG.info("learning curve: %s on %s of the training patients", model, size)
            try:
                for task in all_tasks([model], size.outers):
                    predictor.train(task, wait=True)
            except TrainingError as error:
                left_out.append(f"{model} at {size}: {error}")
            else:
                trained.append(model)
        members = tuple(member.name for member in wanted)
        whole = len(members) > 1 and len(trained) == len(models)
        stacks = {TOGETHER: Stack(members)} if whole else {}
        for name, predictions in gather(bags, predictor, trained, size.outers, stacks).predictions.items():
            found.setdefault(name, []).append((size, predictions))
    return Curve(curve_table(found, bags, seed), sizes, left_out)


def curve_table(found: Found, bags: Bags, seed: int) -> pd.DataFrame:
    """The table of `learning_curve`, from each model's predictions at each of its sizes."""
    weights = resamples(bags.labels, seed)
    rows = []
    for name, (figure, chosen) in _figures(bags).items():
        some = weights[:, chosen]
        for model, by_size in found.items():
            before: list[Predictions] | None = None
            for size, repeats in by_size:
                of = [one.of(chosen) for one in repeats]
                here = estimate(FIGURES[figure], of, some)
                gain = paired_difference(FIGURES[figure], of, before, some) if before else NOTHING
                facts = {"model": model, "share": size.share, "patients": size.patients, "figure": name}
                brought = {"brought": gain.value, "brought_low": gain.low, "brought_high": gain.high}
                times = {"repeats": len(of), "rose_in": _rises(FIGURES[figure], before, of)}
                rows.append({**facts, "value": here.value, "low": here.low, "high": here.high, **brought, **times})
                before = of
    return pd.DataFrame(rows)


def _rises(figure: Figure, before: list[Predictions] | None, after: list[Predictions]) -> int:
    """In how many repeats the figure is higher than before."""
    everybody = np.ones((1, len(after[0].labels)))
    pairs = zip(before or [], after, strict=False)
    return sum(bool(figure(new, everybody)[0] > figure(old, everybody)[0]) for old, new in pairs)


def _figures(bags: Bags) -> dict[str, tuple[str, Booleans]]:
    """Each figure: what is computed, and the patients it is asked of; the grey zone's only if it has both classes."""
    everybody = np.ones(len(bags), dtype=bool)
    grey: Booleans = bags.clinical[:, 1] <= GREY_ZONE_COUNT
    figures = {"auc": ("auc", everybody), "balanced_accuracy": ("balanced_accuracy", everybody)}
    if len(np.unique(bags.labels[grey])) == 2:
        figures["grey_zone_auc"] = ("auc", grey)
    return figures
