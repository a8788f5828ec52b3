"""What is wrong with a cohort is said in one sentence with a remedy, before any picture is decoded."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.synthetic import make_patients, write_cohort
from tests.train_fixtures import DATE, train
from train.data.demands import problem_of_classes, problem_of_labels, problem_of_pictures, problem_of_run

TABLE = "clinical_annotation.csv"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demands") / "cohort"
    write_cohort(folder, make_patients(12, seed=5, images=(3, 3), malignant_share=0.5), seed=5, size=112)
    return folder


def relabelled(cohort: Path, label: Callable[[int, str], str]) -> None:
    """Write other labels: from how many patients had the same label before, and the label."""
    path = cohort / TABLE
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    place, seen = head.index("LABEL"), {"0": 0, "1": 0}
    for row in rows:
        before = row[place]
        row[place] = label(seen[before], before)
        seen[before] += 1
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def one_class(cohort: Path) -> None:
    relabelled(cohort, lambda number, label: "1")


def six_patients(cohort: Path) -> None:
    relabelled(cohort, lambda number, label: label if number < 3 else "-1")


def four_reactive(cohort: Path) -> None:
    relabelled(cohort, lambda number, label: label if label == "1" or number < 4 else "-1")


def words(cohort: Path) -> None:
    relabelled(cohort, lambda number, label: "malignant" if label == "1" else "reactive")


def nobody(cohort: Path) -> None:
    relabelled(cohort, lambda number, label: "-1")


def one_picture(cohort: Path) -> None:
    for path in (*cohort.glob("*/000001.jpg"), *cohort.glob("*/000002.jpg")):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (one_class, "no patient is reactive (LABEL 0), and nothing can be learnt from one class: add such patients"),
        (six_patients, "fewer than 5 malignant patients: 3 of 6, but each of 5 folds needs one. Label more patients"),
        (four_reactive, "fewer than 5 reactive patients: 4 of 10, but each of 5 folds needs one. Label more patients"),
        (words, "LABEL is a word in 12 rows: write 1 for malignant, 0 for reactive and -1 for unknown"),
        (nobody, "no patient has LABEL 1 or 0: write 1 for malignant and 0 for reactive"),
        (
            one_picture,
            "12 of 12 patients have fewer than 2 pictures: put all pictures of a patient into one folder named like "
            "the ID",
        ),
    ],
)
def test_a_cohort_that_cannot_be_trained_on(
    drawn: Path, tmp_path: Path, spoil: Callable[[Path], None], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = Path(shutil.copytree(drawn, tmp_path / "cohort"))
    spoil(cohort)
    monkeypatch.setattr("train.data.crops.decode_crop", lambda *_: pytest.fail("it began to decode"))
    call = train("all", cohort, tmp_path / "run", *DATE)
    assert call.code == (1 if spoil is one_picture else 2)
    where = cohort if spoil is one_picture else cohort / TABLE
    assert f"{where}: {sentence}" in call.errors
    assert not (tmp_path / "run").exists()


def test_the_reference_date_is_asked_for_before_anything_is_decoded(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.data.crops.list_pictures", lambda *_: pytest.fail("it began to list pictures"))
    call = train("all", drawn, tmp_path / "run")
    assert call.code == 2
    assert call.errors.splitlines()[-1] == (
        f"- {drawn / TABLE}: has no SAMPLE_DATE, so ages need --reference-date (the day they are taken at, as "
        "2019-07-01)."
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["holiday.jpg", "manifest.json", "clinical_annotation.csv"])
def test_a_folder_with_something_else_in_it_does_not_become_a_run_folder(
    drawn: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_text("mine")
    monkeypatch.setattr("train.cli.run.crops.cache_crops", lambda *_, **__: pytest.fail("it began to read"))
    call = train("all", drawn, run, *DATE)
    assert call.code == 2
    assert call.errors == (
        f"Error: {run}: is not empty and no run folder of an earlier training. Choose an empty or a new folder\n"
    )
    assert [path.name for path in run.iterdir()] == [name]


@pytest.mark.parametrize("name", ["crops", "options.json", "features-57934424-112-224.npy", ".DS_Store"])
def test_what_a_run_folder_may_hold_when_it_is_begun(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    assert problem_of_run(tmp_path) is None
    assert problem_of_run(tmp_path / "new") is None


def test_rules_at_their_limits() -> None:
    assert problem_of_classes(5, 5) is None
    assert problem_of_classes(90, 4) is not None
    assert problem_of_classes(4, 90) is not None
    assert problem_of_labels(["1", "0", "-1", "", "2"]) is None  # said of each row
    assert problem_of_labels(["1", "0", "yes"]) is not None
    assert problem_of_pictures([1, 1, 2, 2]) is None
    assert problem_of_pictures([1, 1, 1, 2]) is not None
    assert problem_of_pictures([0, 0, 5]) is not None


def test_some_patients_with_fewer_pictures_than_scoring_wants_are_told(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train("crops", drawn, tmp_path / "run", *DATE).code == 0
    assert "12 patients have fewer than 10 pictures; scoring refuses such patients" in caplog.text
