"""Figures show the numbers in the run folder: each CSV is compared with its source, each PNG is decoded."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from infer.errors import UsageError
from tests.train.bags import make_bags
from train.data.bags import Bags
from train.evaluation.report_protocol import LABEL, STATED
from train.figures.cells import GAP, MARGIN, draw_contact_sheet, draw_segmentation, tile
from train.figures.cohort import draw_cohort
from train.figures.curves import FIGURES, draw_curves
from train.figures.table import write_table_2


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with invented results."""
    rng = np.random.default_rng(0)
    for name in ("crops", "cells", "figures", "report/baseline", "report/moe"):
        (tmp_path / name).mkdir(parents=True)
    number = 50
    patients = {
        "patient_id": [f"P{index}" for index in range(number)],
        "label": rng.integers(0, 2, number),
        "sex": rng.integers(0, 2, number),
        "lymph_count": rng.uniform(4, 300, number),
        "age_years": rng.uniform(1, 99, number),
        "images": 3,
    }
    pd.DataFrame(patients).to_csv(tmp_path / "crops/patients.csv", index=False)
    for model in ("baseline", "moe"):
        columns = [f"{part}_{name}" for part in ("training", "validation") for name, _ in FIGURES.values()]
        history = pd.DataFrame(rng.random((4, len(columns))), columns=columns)
        history.insert(0, "epoch", range(4))
        history.to_csv(tmp_path / f"report/{model}/split.history.csv", index=False)
        (tmp_path / f"report/{model}/split.safetensors").touch()  # its presence means that training is complete
    figures = {"training": 0.9, "validation": 0.8, "folds": [0.7] * 5, "folds_mean": 0.7, "folds_spread": 0.0}
    facts = {"protocol": LABEL, "recipe": "small", "seed": 0, "patients": 50, "stated_in_report": STATED}
    models = {"moe": figures | {"folds_mean": 0.75}, "baseline": figures}
    (tmp_path / "report/metrics.json").write_text(json.dumps(facts | {"models": models}))
    return tmp_path


def drawn_bags() -> Bags:
    return make_bags([0, 1, 1], [4, 5, 6], size=112)


def width_and_height(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()
        return picture.size


def test_every_patient_is_in_one_bar_of_each_histogram(run: Path) -> None:
    draw_cohort(run, run / "figures")
    bars = pd.read_csv(run / "figures/figure-02-03-histograms.csv")
    patients = pd.read_csv(run / "crops/patients.csv")
    for column, rows in bars.groupby("column"):
        assert rows["all"].sum() == 50
        assert rows["malignant"].sum() == patients["label"].sum()
        assert (rows["reactive"] + rows["malignant"]).tolist() == rows["all"].tolist()
        for _, bar in rows.iloc[:-1].iterrows():
            inside = patients[column].between(bar["from"], bar["to"], inclusive="left")
            assert bar["all"] == inside.sum()
    for name in ("figure-02-patients.png", "figure-03-by-class.png"):
        assert min(width_and_height(run / "figures" / name)) > 300


def test_curves_are_the_histories(run: Path) -> None:
    draw_curves(run, run / "figures")
    table = pd.read_csv(run / "figures/figure-07-10-curves.csv")
    for model, rows in table.groupby("model"):
        history = pd.read_csv(run / f"report/{model}/split.history.csv")
        pd.testing.assert_frame_equal(rows.drop(columns="model").reset_index(drop=True), history)
    for name in FIGURES:
        assert min(width_and_height(run / f"figures/{name}.png")) > 300


def test_table_2_stands_beside_the_reports_and_says_that_it_flatters(run: Path) -> None:
    write_table_2(run, run / "figures")
    table = pd.read_csv(run / "figures/table-2.csv").set_index("model")
    assert table.index.tolist() == ["baseline", "moe"]
    assert table.loc["moe", "ours_folds_mean"] == 0.75
    assert table.loc["moe", "report_folds_mean"] == 0.94392
    assert table.loc["baseline", "report_validation"] == 0.73978
    assert not any("test" in column for column in table.columns)
    text = (run / "figures/table-2.md").read_text()
    assert "optimistic" in text
    assert "| baseline | 0.900 | 0.800 | 0.700 | 0.000 | 0.899 | 0.740 |  |" in text


def test_the_contact_sheet_shows_pictures_of_the_class_it_names(run: Path) -> None:
    bags = drawn_bags()
    classes = np.array([2, 0, 0, 0, 2, 2, 2, 2, 0, 0, 7, 2, 2, 0, 0])
    owner = [bags.patient_ids[index] for index in bags.patient_of_image()]
    columns = {"patient_id": owner, "image": bags.image_names, "cell_class": classes}
    pd.DataFrame(columns).to_csv(run / "cells/classes.csv", index=False)
    draw_contact_sheet(bags, run, run / "figures", seed=0)
    listed = pd.read_csv(run / "figures/figure-05-classes.csv")
    known = pd.DataFrame(columns)
    assert len(listed.merge(known)) == len(listed) == 15
    assert listed["cell_class"].tolist() == [0] * 7 + [2] * 7 + [7]
    size = (MARGIN + 7 * (112 + GAP) - GAP, 3 * (112 + GAP) - GAP)
    assert width_and_height(run / "figures/figure-05-classes.png") == size
    sheet = np.asarray(Image.open(run / "figures/figure-05-classes.png"))
    alone = int(np.flatnonzero(classes == 7)[0])
    assert (sheet[2 * (112 + GAP) :, MARGIN : MARGIN + 112] == bags.crops[alone].numpy()).all()
    names = [sheet[row * (112 + GAP) : row * (112 + GAP) + 112, :MARGIN] for row in range(3)]
    assert all(name.min() == 0 for name in names)  # a number is drawn there
    assert len({name.tobytes() for name in names}) == 3  # and each row has a different one


def test_without_the_members_classes_there_is_no_contact_sheet(run: Path) -> None:
    """Those of the SCAN with its own network are not shown in their place."""
    (run / "scan").mkdir()
    (run / "scan/classes.csv").write_text("patient_id,image,cell_class\n")
    with pytest.raises(UsageError, match=r"has no cell classes\. Run `python -m train cells` first"):
        draw_contact_sheet(drawn_bags(), run, run / "figures", seed=0)
    assert not (run / "figures/figure-05-classes.png").exists()


def test_segmentation_shows_the_picture_and_what_is_kept(run: Path) -> None:
    bags = drawn_bags()
    draw_segmentation(bags, run / "figures", seed=0)
    listed = pd.read_csv(run / "figures/figure-04-segmentation.csv", dtype=str)
    sheet = np.asarray(Image.open(run / "figures/figure-04-segmentation.png"))
    owner = [bags.patient_ids[index] for index in bags.patient_of_image()]
    first = list(zip(owner, bags.image_names, strict=True)).index((listed["patient_id"][0], f"{listed['image'][0]}"))
    assert (sheet[:112, :112] == bags.crops[first].numpy()).all()


def test_segmented_pictures_are_not_shown_as_whole_ones(run: Path) -> None:
    bags = drawn_bags()
    with pytest.raises(UsageError, match="from a run without --segment"):
        draw_segmentation(replace(bags, facts={**bags.facts, "segmented": "yes"}), run / "figures", seed=0)


def test_curves_of_a_training_that_has_not_ended_are_not_drawn(run: Path) -> None:
    (run / "report/moe/split.safetensors").unlink()
    with pytest.raises(UsageError, match="has no moe curves"):
        draw_curves(run, run / "figures")


def test_tiles_keep_every_pixel() -> None:
    pictures = [np.full((2, 3, 3), value, dtype=np.uint8) for value in range(3)]
    sheet = tile([pictures[:2], pictures[2:]])
    assert sheet.shape == (2 * (2 + GAP) - GAP, 2 * (3 + GAP) - GAP, 3)
    assert (sheet[:2, 3 + GAP :] == 1).all()
    assert (sheet[2 + GAP :, :3] == 2).all()
    assert (sheet[2 + GAP :, 3:] == 255).all()
