"""The estimated times: what they are multiplied by, and that they follow pictures, epochs and recipes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.checked import ASKED_AT, cohort
from train.checking import timing, trials
from train.checking.check import check
from train.checking.finding import Severity
from train.checking.summaries import Summaries, summarise_files
from train.checking.table import Contents, TableOptions, read_contents
from train.data.bags import Bags
from train.data.folds import FOLDS
from train.members.recipes import RECIPES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Contents, Summaries]:
    folder = cohort(tmp_path_factory.mktemp("timing") / "patients", patients=12, pictures=10)
    known = read_contents(TableOptions(folder, ASKED_AT))
    assert known.cohort
    return known, summarise_files(known.cohort, known)


def test_the_six_trainings_see_five_times_all_pictures() -> None:
    sizes, folds = np.array([7, 30, 12, 50, 9, 21, 40, 33, 16, 18]), np.arange(10) % FOLDS
    seen = [int(sizes[folds != fold].sum()) for fold in range(FOLDS)] + [int(sizes.sum())]
    assert len(seen) == trials.TRAININGS
    assert sum(seen) == trials.PASSES * sizes.sum()


def test_the_baseline_costs_what_its_recipe_asks_for(
    small: tuple[Contents, Summaries], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock of 10 ms a picture and 50 ms an epoch, as a slow account over epochs and folds has it."""
    known, looked = small

    bags, sample = trials.without_pictures(known, looked), trials.sampled(looked)
    asked: list[tuple[int, int]] = []

    def trained(of: Bags, recipe: object, epochs: int, path: Path, device: object) -> None:
        asked.append((len(of.crops), epochs))

    def clock(do: Callable[[], object]) -> float:
        before = len(asked)
        do()
        if len(asked) == before:
            return 0.002 * len(sample.crops)  # the forward pass
        pictures, epochs = asked[-1]
        return 1.0 + epochs * (0.05 + 0.01 * pictures)

    monkeypatch.setattr(trials, "_trained", trained)
    monkeypatch.setattr(trials, "_clocked", clock)
    costs = trials.of_baseline(bags, sample, CPU)
    for recipe in RECIPES.values():
        most = recipe.baseline.images_per_patient or 10
        training = 0.0
        for patients in [*[12 * (FOLDS - 1) / FOLDS] * FOLDS, 12]:
            training += recipe.baseline.fit.epochs * (0.05 + 0.01 * patients * min(most, 10))
        assert costs(recipe) == pytest.approx(training + 2 * 120 * 0.002)


def test_all_parts_have_a_time_and_the_full_recipe_takes_longer(small: tuple[Contents, Summaries]) -> None:
    known, looked = small
    assert known.cohort
    times = timing.estimate_times(known.cohort, known, looked, CPU)
    assert [one.stage for one in times] == [
        "decoding and checking", "baseline", "features of the backbone", "cell classes", "mixture of experts",
        "ImageNet member", "ensemble",
    ]  # fmt: skip
    assert all(seconds > 0 for one in times for seconds in one.seconds.values())
    sums = timing.total(times)
    assert sums["full"] > sums["small"] > 1


def test_they_are_left_out_where_something_must_be_corrected(tmp_path: Path) -> None:
    folder = cohort(tmp_path / "patients")
    (folder / "S001").rename(folder / "S100")
    found = check(TableOptions(folder, ASKED_AT), device=CPU)
    assert found.of(Severity.CORRECT)
    assert found.times == ()
