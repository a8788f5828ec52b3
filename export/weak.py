"""Whether a training is worth a bundle: what export warns of, and what it refuses."""

from dataclasses import dataclass
from pathlib import Path

from train.core.texts import interval
from train.page.finished_run import read_run
from train.page.judged import judge
from train.page.said import warnings


@dataclass(frozen=True)
class Worth:
    """What is to be said of a finished training."""

    weak: str  # a sentence if it ranks no better than sex, age and count alone; empty otherwise
    warnings: tuple[str, ...]  # the page's


def worth(run: Path) -> Worth:
    """Judge a run folder by its out-of-fold predictions.

    Raises:
        UsageError: the ensemble has not been fitted.
    """
    found = read_run(run)
    judged = judge(found)
    clinical, gain = judged.clinical[judged.clinical_name], interval(vars(judged.gain), signed=True)
    weak = (
        f"Out of fold it ranks no better than sex, age and count alone: AUC {interval(vars(judged.ensemble))}, "
        f"{judged.clinical_name} on these {interval(vars(clinical))}, difference {gain}"
        if judged.gain.value <= 0
        else ""
    )
    return Worth(weak, warnings(found, judged))
