"""The comparison of adapted networks: nobody is judged who was seen, and frozen is what magnification says."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.synthetic import make_patients, write_cohort
from tests.train.bags import make_bags
from tests.train_fixtures import DATE, train
from train.core.fitting import FitRecipe, Job
from train.data.bags import CROP_SIZE, Bags
from train.data.whose_pictures import COLUMNS, NOBODY
from train.evaluation.nested import finetuned
from train.evaluation.nested.finetuned import untrained
from train.evaluation.nested.plan import outer_folds
from train.experiments import magnification
from train.experiments.tuning import judges, simclr, ways
from train.experiments.tuning.compare import compare
from train.experiments.tuning.last_blocks import halves, train_last_blocks
from train.experiments.tuning.recipe import Clock, OutOfTimeError, SimclrRecipe, TuningRecipe
from train.experiments.tuning.ways import Setting
from train.members.embedding import FEATURES, Magnification, load_backbone, load_embedding
from train.members.features import Features, on_torch
from train.members.recipes import BayesRecipe, FineTunedRecipe
from train.members.scan.simclr import shuffled_batches

CPU = torch.device("cpu")
PATIENTS, IMAGES, SIDE = 20, 4, 32
FIT = FitRecipe(epochs=1, learning_rate=1e-3)
LABELLED = FineTunedRecipe(FIT, batch_patients=8, images_per_patient=2, norm_images=16, input_size=SIDE)
TINY = TuningRecipe(SimclrRecipe(FIT, batch_images=16, norm_images=16, input_size=SIDE), LABELLED, LABELLED)
BAYES = BayesRecipe(smoothing=1e-2)
WITHOUT_LABELS, WITH_LABELS = ["regression", "gated", "cell classes"], ["its own", "regression"]
OF_WAY = {"frozen": WITHOUT_LABELS, "last blocks": WITH_LABELS, "simclr": WITHOUT_LABELS, "fine-tuned": WITH_LABELS}


@dataclass(frozen=True)
class Finished:
    """A finished comparison, and what its trainings were given."""

    bags: Bags
    run: Path
    table: pd.DataFrame
    fitted: list[Any]  # patients
    contrasted: list[Any]  # pictures of SimCLR

    @property
    def predictions(self) -> pd.DataFrame:
        return pd.read_csv(self.run / "tuning/predictions.csv")

    def of(self, way: str, judge: str) -> pd.DataFrame:
        found = self.predictions
        return found[(found["way"] == way) & (found["judge"] == judge)].set_index("patient_id")


@pytest.fixture(scope="module")
def bags() -> Bags:
    made = make_bags([0, 1] * (PATIENTS // 2), [IMAGES] * PATIENTS, size=CROP_SIZE)
    made.clinical[:, 1] = np.linspace(5, 9, PATIENTS)  # 13 in the grey zone
    return made


def seen(bags: Bags) -> Features:
    """By the frozen network, as small as the tuned ones see their cells."""
    look = on_torch(load_backbone(Magnification(CROP_SIZE, SIDE)), CPU)
    return Features(look(bags.crops), look(bags.pictures(NOBODY))[0])


@pytest.fixture(scope="module", autouse=True)
def _frozen_at_that_size() -> Iterator[None]:
    with patch.object(ways, "embed_pictures", lambda bags, *_: seen(bags)):
        yield


@pytest.fixture(scope="module")
def finished(bags: Bags, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    run = tmp_path_factory.mktemp("tuning")
    fitted: list[Any] = []
    contrasted: list[Any] = []
    with (
        patch.object(ways, "train_simclr", spied(fitted, simclr.train_simclr, 1)),
        patch.object(ways, "train_last_blocks", spied(fitted, train_last_blocks, 1)),
        patch.object(finetuned, "train_network", spied(fitted, finetuned.train_network, 1)),
        patch.object(simclr, "shuffled_batches", spied(contrasted, shuffled_batches, 0)),
    ):
        table = compare(setting(bags, run), TINY)
    return Finished(bags, run, table, fitted, contrasted)


def setting(bags: Bags, run: Path, minutes: float | None = None) -> Setting:
    return Setting(bags, run, BAYES, 3, CPU, Clock(minutes))


def spied(calls: list[Any], function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The function; what it is given in place `number` is noted."""

    def noted(*given: Any) -> Any:
        calls.append(given[number])
        return function(*given)

    return noted


def test_every_way_is_judged_on_every_patient_by_those_it_has_not_seen(finished: Finished) -> None:
    bags, table = finished.bags, finished.table
    folds = outer_folds(bags.labels, 3, 1)
    for given, fold in zip(finished.fitted, folds * 3, strict=True):  # three ways that train, fold after fold
        np.testing.assert_array_equal(given, fold.training)
    for crops, fold in zip(finished.contrasted, folds, strict=True):
        assert torch.equal(crops, bags.of(fold.training).crops)
    for way, of_judges in OF_WAY.items():
        for judge in of_judges:
            part = finished.of(way, judge)
            assert sorted(part.index) == sorted(bags.patient_ids)
            assert all(part[column].between(0, 1).all() for column in COLUMNS)
            for fold in folds:
                asked = set(part.index[part["fold"] == fold.number])
                assert asked == {bags.patient_ids[index] for index in fold.held_out}
    pairs = table.groupby("way", sort=False)["judge"].unique()
    assert {way: list(found) for way, found in pairs.items()} == OF_WAY
    pd.testing.assert_frame_equal(pd.read_csv(finished.run / "tuning/tuning.csv"), table)


def test_frozen_is_what_magnification_says(finished: Finished, tmp_path: Path) -> None:
    features = seen(finished.bags)
    with (
        patch.object(magnification, "embed_pictures", lambda *_: features),
        patch.object(magnification, "REPEATS", 1),
    ):
        other = magnification.compare(finished.bags, tmp_path, 3, CPU, [Magnification(CROP_SIZE, SIDE)])
    table = finished.table.query("way == 'frozen' and judge == 'regression'")
    expected = other[other["magnification"] == f"{CROP_SIZE} -> {SIDE}"]
    columns = ["pictures", "figure", "value", "low", "high"]
    pd.testing.assert_frame_equal(table[columns].reset_index(drop=True), expected[columns].reset_index(drop=True))


def test_differences_are_from_the_frozen_network_by_the_same_judge(finished: Finished) -> None:
    bags, table = finished.bags, finished.table

    def area(way: str, judge: str) -> float:
        return float(roc_auc_score(bags.labels, finished.of(way, judge).loc[bags.patient_ids, "probability"]))

    for way, judge, other in (
        ("simclr", "gated", "gated"),
        ("simclr", "cell classes", "cell classes"),
        ("last blocks", "its own", "regression"),
    ):
        row = table.query("way == @way and judge == @judge and pictures == 'own' and figure == 'auc'").iloc[0]
        assert row["value"] == pytest.approx(area(way, judge))
        assert row["difference"] == pytest.approx(area(way, judge) - area("frozen", other))
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert table.query("way == 'frozen' or pictures != 'own'")["difference"].isna().all()


def test_a_call_without_minutes_does_nothing_and_says_so(
    bags: Bags, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert compare(setting(bags, tmp_path, 0), TINY).empty
    assert "0 minutes are used up. 0 trainings are finished" in caplog.text
    assert not list((tmp_path / "tuning").rglob("*.*"))


def test_a_call_that_goes_on_trains_nothing_twice(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.run, tmp_path / "run")
    folds = tmp_path / "run/tuning/folds"

    def stops(*given: Any) -> None:
        raise OutOfTimeError("enough")

    with (
        patch.object(ways, "train_simclr", stops),
        patch.object(ways, "train_last_blocks", stops),
        patch.object(finetuned, "train_network", stops),
    ):
        again = compare(setting(finished.bags, tmp_path / "run", 0), TINY)  # all is there: no minute is needed
        pd.testing.assert_frame_equal(again, finished.table)
        for path in folds.glob("simclr-*.csv"):  # killed before the judges: the networks are there
            path.unlink()
        again = compare(setting(finished.bags, tmp_path / "run"), TINY)
        columns = ["way", "judge", "pictures", "figure", "value", "difference"]
        pd.testing.assert_frame_equal(again[columns], finished.table[columns])
        for path in folds.glob("simclr-2-*"):  # killed before its third fold
            path.unlink() if path.is_file() else shutil.rmtree(path)
        whole = compare(setting(finished.bags, tmp_path / "run"), TINY)
    assert list(whole["way"].unique()) == ["frozen", "last blocks"]
    other = replace(TINY, simclr=replace(TINY.simclr, temperature=0.5))
    assert list(compare(setting(finished.bags, tmp_path / "run", 0), other)["way"].unique()) == [
        "frozen",
        "last blocks",
    ]


def test_the_minutes_end_a_training_between_epochs(bags: Bags, tmp_path: Path) -> None:
    """And what was trained until then is kept."""
    clock = Clock()
    recipe = replace(LABELLED, fit=replace(FIT, epochs=3))
    job = Job("last blocks", tmp_path / "last.safetensors", 0)
    epochs = iter([None, None, OutOfTimeError("enough")])

    def check() -> None:
        if error := next(epochs):
            raise error

    with patch.object(clock, "check", check), pytest.raises(OutOfTimeError):
        train_last_blocks(bags, np.arange(PATIENTS), recipe, job, CPU, clock)
    assert len(pd.read_csv(tmp_path / "last.history.csv")) == 2
    resumed = train_last_blocks(bags, np.arange(PATIENTS), recipe, job, CPU, Clock())
    other = replace(job, checkpoint=tmp_path / "other.safetensors")
    whole = train_last_blocks(bags, np.arange(PATIENTS), recipe, other, CPU, Clock())
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_only_the_last_blocks_change(bags: Bags, tmp_path: Path) -> None:
    everybody = np.arange(PATIENTS)
    job = Job("last blocks", tmp_path / "last.safetensors", 0)
    trained = train_last_blocks(bags, everybody, LABELLED, job, CPU, Clock()).pictures.embedding
    first, last = halves(trained)
    frozen_first, frozen_last = halves(load_embedding())
    assert len(first) == 12
    assert len(last) == 6
    for name, value in frozen_first.state_dict().items():
        assert torch.equal(first.state_dict()[name], value), name
    for name, value in frozen_last.state_dict().items():
        assert not torch.equal(last.state_dict()[name], value), name  # batch norm's counters too
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        np.testing.assert_allclose(last(first(pixels)).mean((2, 3)), trained.features(pixels), atol=1e-6)
    start = untrained(bags, everybody, LABELLED, job).pictures.embedding
    assert torch.equal(start.head.convolution.weight, load_embedding().head.convolution.weight)


def test_simclr_sees_all_of_the_network_and_no_label(bags: Bags, tmp_path: Path) -> None:
    trained = []
    for name, labels in (("one", bags.labels), ("other", 1 - bags.labels)):
        job = Job("simclr", tmp_path / f"{name}.safetensors", 0)
        one = simclr.train_simclr(replace(bags, labels=labels), np.arange(12), TINY.simclr, job, CPU, Clock())
        trained.append(one.state_dict())
    for name, value in load_backbone(Magnification(CROP_SIZE, SIDE)).state_dict().items():
        assert torch.equal(trained[0][name], trained[1][name])
        if name.endswith("convolution.weight"):
            assert not torch.equal(trained[0][name], value), name


def test_cell_classes_are_found_on_training_pictures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty far-apart heaps are told apart; what other patients' pictures are changes nothing."""
    monkeypatch.setattr(judges, "COMPONENTS", 19)  # whitened, the others would be noise here
    rng = np.random.default_rng(0)
    many = make_bags([0, 1] * 5, [40] * 10)
    heap = np.tile(np.arange(20), 20)
    pictures = (10 * rng.normal(size=(20, FEATURES))[heap] + rng.normal(size=(400, FEATURES)) / 100).astype(np.float32)
    blank = pictures[7]
    training = np.arange(8)
    found = judges.cell_classes(many, Features(pictures, blank), training, 0)
    assert len(found) == 401
    assert found[-1] == found[7]
    assert len({(one, other) for one, other in zip(found[:400], heap, strict=True)}) == 20
    changed = pictures.copy()
    changed[320:] = 0
    np.testing.assert_array_equal(judges.cell_classes(many, Features(changed, blank), training, 0)[:320], found[:320])


def test_the_command_says_that_nothing_is_finished(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort", make_patients(10, seed=4, images=(2, 2), malignant_share=0.5), seed=4, size=112)
    call = train("tuning", tmp_path / "cohort", tmp_path / "run", *DATE, "--recipe", "small", "--minutes", "0")
    assert call.code == 0, call.errors
    assert "no way is finished" in call.output
    refused = train("tuning", tmp_path / "cohort", tmp_path / "run", *DATE, "--epochs", "3")
    assert refused.code == 2
    assert "tuning does not accept --epochs" in refused.errors
