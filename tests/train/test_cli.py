"""`python -m train` from the user's point of view: exit codes and messages. Training itself is tested elsewhere."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch

from export.cli import export_command
from tests.synthetic import make_patients, write_cohort
from tests.train_fixtures import DATE, train
from train.cli.commands import cli

COMMANDS = (
    "crops", "baseline", "cells", "scan", "naive-bayes", "moe", "imagenet", "ensemble", "evaluate", "sizes",
    "stability", "zoo", "magnification", "methods", "tuning", "figures", "page", "validate", "check", "all",
    "learning-curve",
)  # fmt: skip


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "cohort"
    write_cohort(folder, make_patients(10, seed=4, images=(2, 2), malignant_share=0.5), seed=4, size=112)
    return folder


def test_all_stages_are_there() -> None:
    assert set(COMMANDS) == set(cli.commands)


def steps_of(verb: str, cohort: Path, run: Path) -> list[tuple[str, click.Context]]:
    """The calls of a verb of the Makefile, as the command lines take them: command, parsed arguments."""
    options = [f"RUN={run}", "TRAIN_OPTIONS=--recipe small", "ABOUT=README.md"]
    line = ["make", "--dry-run", verb, f"DATA={cohort}", *options]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    found = []
    for call in (shlex.split(text) for text in done.stdout.splitlines() if "python -m " in text):
        module, arguments = call[2], call[3:]
        if module in ("train", "export"):
            command = cli.commands[arguments[0]] if module == "train" else export_command
            name, given = (arguments[0], arguments[1:]) if module == "train" else ("export", arguments)
            found.append((name, command.make_context(name, given)))
    return found


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("reproduce", [("all", "small"), ("evaluate", "small", "nested"), ("export",)]),
        (
            "reproduce-report",
            [
                ("scan", "small"),  # not a member: naive Bayes and the report's protocol need it
                ("naive-bayes", "small", "report", "compare"),
                ("evaluate", "small", "report"),
                ("all", "small"),  # figure 5 shows the classes of the member
                ("figures",),
            ],
        ),
    ],
)
def test_every_step_of_make_reproduce_is_a_call_that_the_command_lines_take(
    cohort: Path, tmp_path: Path, verb: str, expected: list[tuple[str, ...]]
) -> None:
    taken, steps = [], steps_of(verb, cohort, tmp_path)
    for name, context in steps:
        chosen = {key: context.params.get(key) for key in ("recipe", "protocol", "compare", "leads", "inductive")}
        taken.append((name, *(value if isinstance(value, str) else key for key, value in chosen.items() if value)))
    assert taken == expected
    if verb == "reproduce":
        export = steps[-1][1].params
        assert export["bundle"] == tmp_path / "bundle"
        assert export["replace"]
        assert export["about"].read() == Path("README.md").read_text()


def test_augmentations_can_be_switched_off_and_the_run_says_so(cohort: Path, tmp_path: Path) -> None:
    assert train("crops", cohort, tmp_path / "run", *DATE, "--without", "turns", "--without", "stain").code == 0
    recipe = json.loads((tmp_path / "run/options.json").read_text())["recipe"]
    assert recipe["name"] == "full, without turns or stain, scaled to 10 patients with 20 pictures"
    assert not recipe["moe"]["turns"]
    assert not recipe["baseline"]["turns"]
    assert not recipe["scan"]["views"]["turns"]
    assert recipe["scan"]["views"]["saturation"] == [1.0, 1.0]
    assert recipe["scan"]["views"]["crop"] < 1
    (line,) = (tmp_path / "run/calls.jsonl").read_text().splitlines()
    assert json.loads(line)["recipe"] == recipe["name"]


def test_zoo_takes_no_recipe_but_its_own(cohort: Path, tmp_path: Path) -> None:
    call = train("zoo", cohort, tmp_path / "run", *DATE, "--epochs", "3")
    assert call.code == 2
    assert "zoo does not accept --epochs" in call.errors


def test_figures_that_cannot_be_drawn_are_named(cohort: Path, tmp_path: Path) -> None:
    assert train("crops", cohort, tmp_path / "run", *DATE).code == 0
    call = train("figures", cohort, tmp_path / "run")
    assert call.code == 2
    for step in ("train cells", "naive-bayes --compare", "evaluate --protocol report"):
        assert step in call.errors
    assert (tmp_path / "run/figures/figure-02-patients.png").exists()


def test_module_and_help() -> None:
    done = subprocess.run([sys.executable, "-m", "train", "--help"], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_crops(cohort: Path, tmp_path: Path) -> None:
    call = train("crops", cohort, tmp_path / "run", *DATE)
    assert (call.code, call.output) == (0, "10 patients, 20 pictures\n")
    options = json.loads((tmp_path / "run/options.json").read_text())
    assert (options["seed"], options["recipe"]["name"]) == (0, "full, scaled to 10 patients with 20 pictures")


def test_wrong_usage_is_2(cohort: Path, tmp_path: Path) -> None:
    assert train("crops", tmp_path / "nowhere", tmp_path / "run", *DATE).code == 2
    assert train("crops", cohort, tmp_path / "run", "--reference-date", "1.7.2019").code == 2
    assert train("all", cohort, tmp_path / "run", *DATE, "--epochs", "0").code == 2
    assert not (tmp_path / "run").exists()
    call = train("crops", cohort, tmp_path / "run")
    assert call.code == 2
    assert "ages need --reference-date" in call.errors


def test_stages_out_of_order_are_2(cohort: Path, tmp_path: Path) -> None:
    call = train("naive-bayes", cohort, tmp_path / "run", *DATE)
    assert call.code == 2
    assert "has no cell classes. Run `python -m train scan`" in call.errors
    call = train("ensemble", cohort, tmp_path / "run", *DATE)
    assert call.code == 2
    assert "Run `python -m train baseline`" in call.errors


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_2(cohort: Path, tmp_path: Path) -> None:
    call = train("crops", cohort, tmp_path / "run", *DATE, "--device", "cuda")
    assert call.code == 2
    assert "torch finds no CUDA device" in call.errors


def test_a_cohort_that_cannot_be_used_is_1(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    table = (cohort / "clinical_annotation.csv").read_text()
    (tmp_path / "cohort/clinical_annotation.csv").write_text(table)
    call = train("crops", tmp_path / "cohort", tmp_path / "run", *DATE)
    assert call.code == 1
    assert "S001: a labelled patient's folder cannot be read" in call.errors


def test_a_call_that_did_nothing_claims_no_run_folder(cohort: Path, tmp_path: Path) -> None:
    assert train("crops", cohort, tmp_path / "run", "--recipe", "small").code == 2  # forgot --reference-date
    assert train("crops", cohort, tmp_path / "run", "--recipe", "full", *DATE).code == 0


def test_a_model_of_given_classes_stays_apart(cohort: Path, tmp_path: Path) -> None:
    assert train("crops", cohort, tmp_path / "run", *DATE).code == 0
    images = (tmp_path / "run/crops/images.csv").read_text().splitlines()
    rows = [f"{row.rpartition(',')[0]},{number % 15}" for number, row in enumerate(images[1:])]  # not the quality
    (tmp_path / "classes.csv").write_text("\n".join(["patient_id,image,cell_class", *rows]) + "\n")
    call = train("naive-bayes", cohort, tmp_path / "run", *DATE, "--cell-classes", tmp_path / "classes.csv")
    assert call.code == 0
    assert (tmp_path / "run/naive_bayes_on_given_classes/full.json").is_file()
    assert [path.name for path in (tmp_path / "run/naive_bayes").iterdir()] == ["metrics.json"]
