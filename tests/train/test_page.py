"""The page of a finished training: its values are those of the files, and it says no more than they show."""

import base64
import dataclasses
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from infer.bundle.manifest import OperatingPoint
from infer.errors import UsageError
from tests.train.drawn_run import draw_run, history
from tests.train_fixtures import TrainedRun, train
from train.core.performance import Estimate
from train.core.texts import number
from train.data.bags import load_crops
from train.ensemble.fit import choose_pull, decide_all, fit_ensemble
from train.members import registry
from train.page import histories
from train.page.finished_run import FinishedRun, read_run
from train.page.judged import Judged, judge
from train.page.said import next_steps, verdict, warnings
from train.page.write import PAGE, render, write_page


class Tables(HTMLParser):
    """Every table of a page by its label: rows of cells; and every picture's alternative text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self.pictures: list[dict[str, str | None]] = []
        self.text = ""
        self._rows: list[list[str]] | None = None
        self._cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._rows = self.found[dict(attrs)["aria-label"] or ""] = []
        if tag == "tr" and self._rows is not None:
            self._rows.append([])
        if tag in ("td", "th") and self._rows:
            self._rows[-1].append("")
            self._cell = True
        if tag == "img":
            self.pictures.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._rows = None
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._rows and self._cell:
            self._rows[-1][-1] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def found(run: Path) -> FinishedRun:
    return read_run(run)


@pytest.fixture(scope="module")
def judged(found: FinishedRun) -> Judged:
    return judge(found)


@pytest.fixture(scope="module")
def page(found: FinishedRun) -> Tables:
    return Tables(render(found))


def of_models(page: Tables) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in page.found["Members and ensemble"]}


def shown(figures: dict[str, float], name: str) -> str:
    value, low, high = (number(figures[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value} [{low}, {high}]"


def test_the_figures_of_members_are_those_of_the_files(page: Tables, run: Path) -> None:
    metrics = json.loads((run / "ensemble/metrics.json").read_text())
    weights = json.loads((run / "ensemble/ensemble.json").read_text())["weights"]
    rows = of_models(page)
    titles = {"baseline": "Baseline", "scan": "SCAN member", "moe": "Mixture of experts", "imagenet": "ImageNet member"}
    for name, title in titles.items():
        mine, alone = metrics[name], metrics[f"{name}, pictures only"]
        assert rows[title] == [
            shown(mine, "auc"),
            shown(alone, "auc"),
            shown(mine, "grey_zone_auc"),
            number(mine["balanced_accuracy"]),
            number(weights[name]),
            number(metrics["influence"][name]),
        ]
    assert rows["Ensemble"][0].startswith(number(metrics["ensemble"]["auc"]))
    assert rows["Sex, age and count alone: naive Bayes"][0] == shown(metrics["clinical GaussianNB"], "auc")


def test_the_verdict_has_the_interval_of_the_metrics(found: FinishedRun, judged: Judged) -> None:
    of = found.metrics["ensemble"]
    said = verdict(found, judged)
    assert f"AUC {number(of['auc'])} [{number(of['auc_low'])}, {number(of['auc_high'])}] on 60 patients" in said[0]
    assert said[2].endswith("that of the nested evaluation: what to do next.")


def test_patients_are_counted(page: Tables, run: Path) -> None:
    table = pd.read_csv(run / "crops/patients.csv")
    rows = {row[0]: row[1:] for row in page.found["Patients"][1:]}
    assert [rows[name][0] for name in ("Reactive", "Malignant", "All")] == ["20", "40", "60"]
    malignant = table[table["label"] == 1]
    assert rows["Malignant"][1] == str(int(malignant["sex"].sum()))
    low, middle, high = malignant["age_years"].quantile([0.05, 0.5, 0.95])
    assert rows["Malignant"][2] == f"{middle:.0f} ({low:.0f} to {high:.0f})"
    assert rows["All"][4] == "5 (5 to 5)"


def test_folds_have_their_own_aucs(page: Tables, run: Path) -> None:
    table = pd.read_csv(run / "ensemble/out_of_fold.csv")
    moe = pd.read_csv(run / "moe/out_of_fold.csv")
    head, *rows = page.found["Folds"]
    for fold, row in enumerate(rows):
        some = table["fold"] == fold
        assert row[:3] == [f"Fold {fold + 1}", "12", "8"]
        assert row[3] == number(float(roc_auc_score(table["label"][some], table["probability"][some])))
        at = head.index("AUC, mixture of experts")
        assert row[at] == number(float(roc_auc_score(moe["label"][some], moe["probability"][some])))


def test_decisions_are_those_of_thresholds_fitted_on_other_folds(page: Tables, run: Path) -> None:
    """Fitted once more, fold by fold, and counted."""
    bags = load_crops(run)
    folds = pd.read_csv(run / "ensemble/out_of_fold.csv")["fold"].to_numpy()
    names = registry.names()
    tables = [pd.read_csv(run / member.folder / "out_of_fold.csv")["probability"] for member in registry.MEMBERS]
    members = np.stack([table.to_numpy() for table in tables])
    decisions = np.empty(len(bags), dtype=object)
    for fold in range(5):
        rest, asked = folds != fold, folds == fold
        pull = choose_pull(members[:, rest], bags.labels[rest], folds[rest], names)[0]
        fitted = fit_ensemble(members[:, rest], bags.labels[rest], names, pull)
        decisions[asked] = decide_all(members[:, asked], fitted)["sensitivity-95"]
    _, *rows = page.found["Decisions at sensitivity-95"]
    for label, row in zip((0, 1), rows, strict=True):
        mine = decisions[bags.labels == label]
        assert row[1:] == [str(int((mine == one).sum())) for one in ("reactive", "refer", "malignant")]


def test_cells_of_a_class_are_of_that_class(page: Tables, run: Path) -> None:
    """Each drawn picture has one colour of its own."""
    crops, classes = np.load(run / "crops/crops.npy"), pd.read_csv(run / "cells/classes.csv")["cell_class"].to_numpy()
    cells = [one for one in page.pictures if (one["alt"] or "").startswith("Cell ")]
    assert len(cells) == 3 * 8
    for cell in cells:
        data = base64.b64decode((cell["src"] or "").removeprefix("data:image/jpeg;base64,"))
        colour = np.asarray(Image.open(io.BytesIO(data)))[56, 56].astype(int)
        nearest = np.abs(crops[:, 0, 0].astype(int) - colour).sum(axis=1).argmin()
        assert (cell["alt"] or "").endswith(f"of class {classes[nearest]}")
    assert "Class 0: 120 pictures, 40.0% of those of malignant and 40.0% of those of reactive patients" in page.text


def test_it_is_one_file_without_script_and_without_ids(found: FinishedRun) -> None:
    page = render(found)
    assert "<script" not in page
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert all(re.search(r"\balt=\"[^\"]+\"", tag) for tag in re.findall(r"<img[^>]*>", page))
    assert not any(re.search(rf"\b{identifier}\b", Tables(page).text) for identifier in found.bags.patient_ids)


@pytest.mark.parametrize(
    ("gain", "sentence"),
    [
        (Estimate(0.1, 0.01, 0.2), "So pictures are shown to help here."),
        (Estimate(0.1, -0.01, 0.2), "So it is not shown that pictures help here."),
        (Estimate(-0.1, -0.2, -0.01), "So it ranks worse than they do: do not use it."),
    ],
)
def test_what_is_said_of_pictures(found: FinishedRun, judged: Judged, gain: Estimate, sentence: str) -> None:
    assert verdict(found, dataclasses.replace(judged, gain=gain))[1].endswith(sentence)


def test_the_harder_way_to_use_sex_age_and_count_is_the_one_compared_with(judged: Judged) -> None:
    assert judged.clinical[judged.clinical_name].value == max(one.value for one in judged.clinical.values())
    assert judged.gain.value == pytest.approx(judged.ensemble.value - judged.clinical[judged.clinical_name].value)


def test_a_count_that_tells_everything_leaves_pictures_nothing(tmp_path: Path) -> None:
    found = read_run(draw_run(tmp_path / "run", clinical_skill=6.0))
    judged = judge(found)
    assert judged.gain.value < 0.03
    assert "The ensemble is not shown to rank better than sex, age and count alone." in warnings(found, judged)


def changed_point(found: FinishedRun) -> FinishedRun:
    points = {**found.ensemble.operating_points, "balanced": OperatingPoint(0.4, 0.4)}
    return dataclasses.replace(found, ensemble=_with(found, operating_points=points))


def without_weight(found: FinishedRun) -> FinishedRun:
    return dataclasses.replace(found, ensemble=_with(found, weights=dict.fromkeys(found.ensemble.weights, 0.0)))


def _with(found: FinishedRun, **changes: Any) -> Any:
    return msgspec.structs.replace(found.ensemble, **changes)


def by_chance(found: FinishedRun) -> FinishedRun:
    return dataclasses.replace(found, metrics={**found.metrics, "scan": {**found.metrics["scan"], "auc_low": 0.45}})


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (changed_point, "Operating point balanced: both thresholds are equal, so it refers nobody by probability."),
        (without_weight, "The ImageNet member has weight 0: the ensemble would say the same without it."),
        (by_chance, "The SCAN member is not shown to rank better than chance."),
        (
            lambda found: dataclasses.replace(found, members=found.members[:1]),
            "The ImageNet member has no out_of_fold.csv in this run folder: it is not on this page.",
        ),
        (
            lambda found: dataclasses.replace(found, changed=("moe/full.safetensors",)),
            "The ensemble was fitted on other files than those here now (moe/full.safetensors): run `python -m train "
            "ensemble` again.",
        ),
    ],
)
def test_warnings(
    found: FinishedRun, judged: Judged, change: Callable[[FinishedRun], FinishedRun], warning: str
) -> None:
    assert warning not in warnings(found, judged)
    assert warning in warnings(change(found), judged)


def test_operating_points_that_are_alike_are_named_together(found: FinishedRun, judged: Judged) -> None:
    same = dict.fromkeys(found.ensemble.operating_points, OperatingPoint(0.2, 0.6))
    said = warnings(dataclasses.replace(found, ensemble=_with(found, operating_points=same)), judged)
    assert "Operating points balanced, sensitivity-95 and sensitivity-98 are the same." in said


def test_a_nested_evaluation_of_the_run_is_quoted(run: Path, tmp_path: Path, judged: Judged) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    (other / "nested").mkdir()
    row = {"model": "ensemble", "group": "all", "figure": "auc", "value": 0.9, "low": 0.8, "high": 0.95}
    rows = [row | {"model": "moe", "value": 0.1}, row | {"figure": "balanced_accuracy", "value": 0.2}, row]
    (other / "nested/figures.json").write_text(json.dumps({"performance": rows}))
    assert verdict(read_run(other), judged)[2].endswith("in this run folder: AUC .900 [.800, .950].")


def test_few_patients_and_rejected_pictures_are_warned_of(found: FinishedRun, judged: Judged) -> None:
    said = warnings(found, judged)
    assert "Few patients: 40 malignant, 20 reactive. All figures are uncertain." in said
    assert "Pictures that were rejected and not used: 1. crops/rejected.csv says why." in said


def test_the_next_commands_have_the_runs_own_options(found: FinishedRun, run: Path) -> None:
    nested, export, validate = (" ".join(step.command.replace("\\\n", "").split()) for step in next_steps(found))
    assert nested == (
        "python -m train evaluate PATIENTS RUN --recipe small --sex-codes H=male,M=female --protocol nested"
    )
    assert export == f"python -m export {run} {run}/bundle"
    assert validate == f"python -m train validate {run}/bundle OTHER_PATIENTS OUT --sex-codes H=male,M=female"


def test_curves_tell_training_and_validation_apart_in_whole_epochs(run: Path) -> None:
    figure = histories.draw(histories.read_histories(run)["baseline"])
    figure.canvas.draw()
    for axis in figure.axes:
        ticks = [float(tick) for tick in axis.get_xticks()]
        assert ticks == [round(tick) for tick in ticks]
        assert axis.get_xlabel() == "epoch"
        assert axis.get_legend_handles_labels()[1] == ["training", "validation"]
        assert axis.get_legend() is not None
    thick = [line for line in figure.axes[0].lines if line.get_linewidth() == 2]
    drawn = history(7, watched=True)
    for line, column in zip(thick, ("training_loss", "validation_loss"), strict=True):
        np.testing.assert_allclose(np.asarray(line.get_ydata()), drawn[column])
        assert np.asarray(line.get_xdata()).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_a_member_cell_classes_and_curves_may_be_missing(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(other / "cells")
    for path in other.glob("baseline/*.history.csv"):
        path.unlink()
    page = Tables(render(read_run(other)))
    assert "SCAN member" not in of_models(page)
    assert "This run has no cell classes." in page.text
    assert len(page.pictures) == 2
    assert "No curves: baseline, mixture of experts, ImageNet member." in page.text


def test_curves_of_an_earlier_version_are_of_training_alone(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    for path in other.glob("baseline/*.history.csv"):
        history(4, watched=False).to_csv(path, index=False)
    page = Tables(render(read_run(other)))
    assert "Loss in training of 6 networks" in page.text
    assert "Learning curves of the baseline: training loss by epoch" in {one["alt"] for one in page.pictures}


def test_without_an_ensemble_it_says_what_to_do(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    (other / "ensemble/metrics.json").unlink()
    with pytest.raises(UsageError, match=r"metrics\.json: is missing\. Run `python -m train all` first"):
        write_page(other)
    call = train("page", tmp_path, other)
    assert (call.code, (other / PAGE).exists()) == (2, False)


def test_the_command_writes_it_and_trains_nothing(trained_run: TrainedRun, tmp_path: Path) -> None:
    run = shutil.copytree(trained_run.run, tmp_path / "run")
    (run / PAGE).unlink()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    call = train("page", trained_run.patients, run)
    assert (call.code, call.output) == (0, f"{run / PAGE}\n")
    page = Tables((run / PAGE).read_text())
    of = "loss and balanced accuracy by epoch, in training and on held-out patients"
    assert f"Learning curves of the mixture of experts: {of}" in {one["alt"] for one in page.pictures}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert f"{len(load_crops(run))}" == page.found["Patients"][3][1]
