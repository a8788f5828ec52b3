"""`train all` from one end to the other: what it says on the way, and what is left of an interrupted one."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.train.test_fitting import Watched
from tests.train_fixtures import DATE, EPOCHS, IMAGES, OPTIONS, SMALL_BATCHES, TrainedRun, train
from train.cli.costs import Size
from train.cli.whole import Plan, counted
from train.core.fitting import FitRecipe
from train.members import registry
from train.members.recipes import SMALL, adapted
from train.progress.estimate import DEVICE, FILES, PROCESSOR, Stage
from train.progress.progress import Progress

SIZE = Size(130, 10622)


def titles(plan: Plan) -> list[str]:
    return [stage.title for stage in plan.stages(SIZE)]


def test_every_member_is_a_stage_and_costs_something(tmp_path: Path) -> None:
    stages = Plan(tmp_path, SMALL, 0, on_device=False).stages(SIZE)
    assert len(stages) == len(registry.MEMBERS) + 4
    assert titles(Plan(tmp_path, SMALL, 0, on_device=False))[2:6] == [
        "baseline", "SCAN member", "mixture of experts", "ImageNet member"
    ]  # fmt: skip
    assert {stage.kind for stage in stages} == {FILES, PROCESSOR}
    assert all(stage.cost > 0 and stage.left == 1 for stage in stages)
    on_gpu = Plan(tmp_path, SMALL, 0, on_device=True).stages(SIZE)
    assert [stage.title for stage in on_gpu if stage.kind == DEVICE] == ["backbone features", "baseline"]


def test_half_the_epochs_cost_the_baseline_half_and_each_picture_the_same(tmp_path: Path) -> None:
    def baseline(recipe_epochs: int, shown: int) -> float:
        of = replace(SMALL.baseline, fit=replace(SMALL.baseline.fit, epochs=recipe_epochs), images_per_patient=shown)
        return Plan(tmp_path, replace(SMALL, baseline=of), 0, on_device=False).stages(SIZE)[2].cost

    assert baseline(36, 32) == pytest.approx(2 * baseline(18, 32), rel=0.01)
    assert baseline(36, 48) - baseline(36, 32) == pytest.approx(baseline(36, 32) - baseline(36, 16))
    assert baseline(36, 0) == pytest.approx(baseline(36, 10**6))  # no patient has more than they have


def test_what_an_earlier_call_finished_is_not_left(trained_run: TrainedRun, tmp_path: Path) -> None:
    recipe = adapted(SMALL_BATCHES, EPOCHS, IMAGES)
    plan = Plan(shutil.copytree(trained_run.run, tmp_path / "run"), recipe, 0, on_device=False)
    left = {stage.title: stage.left for stage in plan.stages(SIZE)}
    assert left.pop("ensemble") == left.pop("page") == 1  # seconds, and made anew each time
    assert set(left.values()) == {0}
    for path in (*(plan.folder / "baseline").glob("fold-[34].csv"), plan.folder / "baseline/full.safetensors"):
        path.unlink()
    (plan.folder / "imagenet/numbers.json").write_text("{}")
    found = {stage.title: stage.left for stage in plan.stages(SIZE) if stage.left}
    assert found == {"baseline": pytest.approx(3 / 6), "ImageNet member": 1, "ensemble": 1, "page": 1}


def test_a_cohort_is_counted_by_its_files(trained_run: TrainedRun) -> None:
    pictures = sum(1 for path in trained_run.patients.glob("*/*") if path.is_file())
    assert counted(trained_run.patients) == Size(60, pictures)


def test_all_says_where_it_is(trained_run: TrainedRun, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The baseline's last training is done again: from its beginning, and alone."""
    caplog.set_level("INFO", logger="lympho")
    run = shutil.copytree(trained_run.run, tmp_path / "run")
    (run / "baseline/full.safetensors").unlink()
    (run / "training.html").unlink()
    assert train("all", trained_run.patients, run, *DATE, *OPTIONS).code == 0
    lines = [record.getMessage() for record in caplog.records]
    stages = [line for line in lines if re.match(r"stage \d of \d: ", line)]
    plan = Plan(run, SMALL, 0, on_device=False)
    assert [line.partition(";")[0] for line in stages] == [
        f"stage {number + 1} of {len(titles(plan))}: {title}" for number, title in enumerate(titles(plan))
    ]
    assert all(re.search(r"; (about .*|a few seconds) left", line) for line in stages)
    assert re.fullmatch(rf"all {len(stages)} stages done in .*", lines[-1])
    ends = [line for line in lines if line.startswith("baseline ")]
    assert [line.partition(", loss")[0] for line in ends] == ["baseline full: 3 epochs"]
    assert (run / "training.html").is_file()


def test_a_followed_training_says_one_line_at_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="lympho")
    progress = Progress([Stage("toy", PROCESSOR, 1)], lambda line: None)
    watched = Watched()
    with progress.stage():
        watched.fit(FitRecipe(epochs=4, learning_rate=0.1), tmp_path)
    first, last = (np.mean(watched.losses[3 * epoch : 3 * epoch + 3]) for epoch in (0, 3))
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"toy: 4 epochs, loss {first:.4f} at first, {last:.4f} at last"]
