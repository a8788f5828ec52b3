"""Everything that is wrong with table and folders is said in one list, and nothing is written among the patients."""

import shutil
from pathlib import Path

import pytest

from tests.train.checked import ASKED_AT, TABLE, checked, cohort, edit, with_topic
from tests.train_fixtures import DATE, train
from train.checking.finding import Severity
from train.checking.page import NAME

CORRECT, LOOK, FINE = Severity


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cohort(tmp_path / "patients")


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_clean_cohort_has_nothing_to_correct_and_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    before = states(folder)
    call = train("check", folder, *DATE, "--no-timing", "--out", tmp_path / "pages")
    assert (call.code, call.errors) == (0, "")
    assert states(folder) == before
    assert (tmp_path / "pages" / NAME).is_file()
    assert "Training can begin" in call.output
    assert "12 patients: 6 malignant (50%), 6 reactive" in call.output
    assert "120 usable pictures; a patient has 10 to 10, median 10" in call.output


def test_all_that_must_be_corrected_is_said_at_once(folder: Path, tmp_path: Path) -> None:
    lines = (folder / TABLE).read_text().splitlines()
    cells = [line.split(",") for line in lines]
    cells[1][2] = "yes"  # LABEL
    cells[2][5] = ""  # LYMPH_COUNT
    cells[3][4] = "1/1/1700"  # DOB: an age outside the plausible range
    cells[4][5] = "9000"  # cells per microlitre
    (folder / TABLE).write_text("\n".join(map(",".join, cells)) + "\n")
    shutil.rmtree(folder / "S005")
    for path in (folder / "S006").iterdir():
        path.unlink()
    for path in (folder / "S007").iterdir():
        path.write_bytes(b"no picture")
    shutil.copy(folder / "S008/000000.jpg", folder / "S009/other.jpg")
    call = train("check", folder, "--no-timing", "--out", tmp_path / "page.html")
    assert call.code == 2
    said = call.output.partition("To look at")[0]
    for part in (
        "has no SAMPLE_DATE, so ages need --reference-date",
        "line 2 (S001): LABEL is none of 1, 0, -1",
        "line 3 (S002): count_missing",
        "line 4 (S003): age_implausible",
        "line 5 (S004): count_implausible",
        "line 6:",
        "S005: a labelled patient's folder cannot be read",
        "no usable picture: S006.",
        "no usable picture: S007.",
        "2 patients share the same picture",
        "S008/000000.jpg and S009/other.jpg",
    ):
        assert part in said
    assert "fewer than 5" in said  # of the classes that are left
    assert "first correct what is listed" in call.output
    assert "S008/000000.jpg and S009/other.jpg" in (tmp_path / "page.html").read_text()


def test_one_class_only(folder: Path) -> None:
    text = (folder / TABLE).read_text().splitlines()
    rows = [line.split(",") for line in text]
    for row in rows[1:]:
        row[2] = "1"
    (folder / TABLE).write_text("\n".join(map(",".join, rows)) + "\n")
    (one,) = with_topic(checked(folder), "classes", CORRECT)
    assert "no patient is reactive (LABEL 0), and nothing can be learnt from one class: add such patients" in one.what


@pytest.mark.parametrize(("malignant", "wrong"), [(4, 1), (5, 0), (7, 0), (8, 1)])
def test_too_few_of_a_class_for_five_folds(folder: Path, malignant: int, wrong: int) -> None:
    rows = [line.split(",") for line in (folder / TABLE).read_text().splitlines()]
    for at, row in enumerate(rows[1:]):
        row[2] = str(int(at < malignant))
    (folder / TABLE).write_text("\n".join(map(",".join, rows)) + "\n")
    assert len(with_topic(checked(folder), "classes", CORRECT)) == wrong


def test_a_missing_reference_date_does_not_hide_the_rest(folder: Path) -> None:
    edit(folder, ",S004,", ",,")
    found = checked(folder, date=None)
    assert [one.topic for one in found.of(CORRECT)] == ["reference date", "rows"]
    assert with_topic(checked(folder, ASKED_AT), "reference date", CORRECT) == []


def test_a_table_that_cannot_be_read_is_a_finding(folder: Path) -> None:
    edit(folder, "GENDER", "GESCHLECHT")
    (one,) = checked(folder).findings
    assert (one.severity, one.topic) == (CORRECT, "table")
    assert "has no column GENDER" in one.what


def test_counts_without_lymphocytosis_and_children_are_to_look_at(folder: Path) -> None:
    rows = [line.split(",") for line in (folder / TABLE).read_text().splitlines()]
    rows[1][5], rows[2][4] = "3.9", "1/1/2010"
    (folder / TABLE).write_text("\n".join(map(",".join, rows)) + "\n")
    low, young = with_topic(checked(folder), "values", LOOK)
    assert low.concerned == ("S001",)
    assert "S002" in young.concerned


def add_centres(folder: Path, names: list[str]) -> None:
    head, *rows = (folder / TABLE).read_text().splitlines()
    lines = [f"{head},CENTRE", *(f"{row},{name}" for row, name in zip(rows, names, strict=True))]
    (folder / TABLE).write_text("\n".join(lines) + "\n")


def test_a_centre_with_patients_of_one_class_is_to_look_at(folder: Path) -> None:
    labels = [row.split(",")[2] for row in (folder / TABLE).read_text().splitlines()[1:]]
    add_centres(folder, ["Lyon" if label == "1" else "Brest" for label in labels])
    (found,) = with_topic(checked(folder), "centres", Severity.LOOK)
    assert found.what == "2 of 2 centres have patients of one class only: Brest, Lyon"
    assert found.concerned == ("Brest: 0 malignant, 6 reactive", "Lyon: 6 malignant, 0 reactive")


def test_centres_of_both_classes_are_only_said(folder: Path) -> None:
    add_centres(folder, ["Lyon"] * 12)
    (found,) = with_topic(checked(folder), "centres", Severity.FINE)
    assert found.concerned == ("Lyon: 6 malignant, 6 reactive",)


def test_a_column_that_is_half_filled_must_be_corrected(folder: Path) -> None:
    add_centres(folder, ["Lyon"] * 11 + [""])
    (found,) = with_topic(checked(folder), "centres", Severity.CORRECT)
    assert "CENTRE is empty" in found.what


def test_folders_without_a_row_and_below_a_patients_are_to_look_at(folder: Path) -> None:
    shutil.copytree(folder / "S001", folder / "S099")
    shutil.copytree(folder / "S002", folder / "S003/more")
    without, below = with_topic(checked(folder), "folders", LOOK)
    assert without.concerned == ("S099",)
    assert below.concerned == ("S003: 'more'",)


def test_the_page_is_never_written_among_the_patients_nor_over_something_else(folder: Path, tmp_path: Path) -> None:
    call = train("check", folder, *DATE, "--no-timing", "--out", folder / "check.html")
    assert call.code == 2
    assert "lies inside the cohort" in call.errors
    (tmp_path / "mine.html").write_text("mine")
    call = train("check", folder, *DATE, "--no-timing", "--out", tmp_path / "mine.html")
    assert call.code == 2
    assert (tmp_path / "mine.html").read_text() == "mine"
    for _ in range(2):  # its own page is written over
        assert train("check", folder, *DATE, "--no-timing", "--out", tmp_path / "page.html").code == 0
