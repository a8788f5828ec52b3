"""How long `train all` will take on this machine with each recipe: from short trials of its own parts.

An estimate: the machine may be busier or idler then.
"""

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from infer.cohort.patient import Cohort
from train.checking import trials
from train.checking.summaries import Summaries
from train.checking.table import Contents
from train.members.recipes import RECIPES

LOG = logging.getLogger("lympho")


@dataclass(frozen=True)
class StageTime:
    """One part of `train all`."""

    stage: str
    seconds: dict[str, float]  # by recipe


def estimate_times(cohort: Cohort, known: Contents, looked: Summaries, device: torch.device) -> list[StageTime]:
    """The parts in their order. Takes less than a minute on two idle cores.

    Args:
        known: with at least five patients of either class, each with a usable picture.
        looked: with a sample of the pictures.
    """
    with _quiet():
        parts = trials.of_parts(cohort, known, looked, device)
    return [StageTime(name, {recipe: of(RECIPES[recipe]) for recipe in RECIPES}) for name, of in parts]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress of trainings that are only trials."""
    level = LOG.level
    LOG.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # no terminal, so no progress bar
            yield
    finally:
        LOG.setLevel(level)


def total(times: list[StageTime]) -> dict[str, float]:
    """Seconds in all, by recipe."""
    return {name: sum(one.seconds[name] for one in times) for name in times[0].seconds}
