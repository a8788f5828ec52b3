"""Pages of a run: which files, whole or not at all, the same bytes whatever happened before, and never at its cost."""

import base64
import csv
import errno
import io
import json
import logging
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from infer.errors import OutputError, UsageError
from infer.output.journal import Header
from infer.output.kept import read_header
from infer.output.pages import OLD, PAGES, PART, Pages, check_pages, new_pages, remove_pages
from infer.pictures.look import look
from infer.report.texts import Texts
from tests.infer import runs
from tests.infer.report_pages import HOSTILE, Page, parsed
from tests.infer.runs import LEFT, RESULT_FILES, TABLE, TINY, Outcome, cut, names, replace_picture
from tests.infer.test_pixel_size import KNOWN, stating

SIX = ["index.html", *(f"p{number:05}.html" for number in range(1, 7))]
ROOT = Path(__file__).parents[2]


def score(cohort: Path, out: Path, **options: Any) -> Outcome:
    return runs.score(cohort, out, **({"bundle": TINY, "report": True} | options))


def pages(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / PAGES).iterdir())}


def page(out: Path, name: str = "index.html") -> Page:
    return parsed((out / PAGES / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reported(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return score(pristine, tmp_path_factory.mktemp("reported") / "out")


def pictures(view: Page) -> dict[str, Any]:
    """The pictures of a page by file, (112, 112, 3)."""
    sources = {e.attributes["alt"].split(",")[0].removeprefix("Cell in "): e.attributes["src"] for e in view.all("img")}
    return {
        name: np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), np.int16)
        for name, uri in sources.items()
    }


def apart(pixels: Any, crop: Any) -> float:
    return float(np.abs(pixels - np.asarray(crop, np.int16)).mean())


def test_the_pages_of_a_run(reported: Outcome) -> None:
    assert names(reported.out) == sorted([*RESULT_FILES, PAGES])
    assert names(reported.out / PAGES) == SIX
    assert {stat.S_IMODE(path.stat().st_mode) for path in (reported.out / PAGES).iterdir()} == {0o640}
    assert stat.S_IMODE((reported.out / PAGES).stat().st_mode) == 0o750
    index = page(reported.out)
    rows = sorted(reported.predictions.values(), key=lambda row: -float(row["probability_malignant"]))
    assert [row[0] for row in index.rows("scored")] == [row["patient_id"] for row in rows]
    links = {e.text.strip(): e.attributes["href"] for e in index.all("a")}
    assert links == {patient: f"p{number:05}.html" for number, patient in enumerate(reported.predictions, 1)}


def test_a_page_says_what_the_tables_say(reported: Outcome) -> None:
    row, view = reported.predictions["S002"], page(reported.out, "p00002.html")
    assert view.one("h1") == "Patient S002"
    assert f"{float(row['probability_malignant']):.3f}" in view.one("p", class_="sentence")
    images = {one["image"]: one for one in reported.images if one["patient_id"] == "S002"}
    shown = [" ".join(e.text.split()) for e in view.all("figcaption")]
    texts = Texts("en")
    expected = [
        f"{texts.influence(float(one['influence']))} class {one['cell_class']} {name}" for name, one in images.items()
    ]
    assert sorted(shown) == sorted(expected)
    influences = [float(images[text.split()[-1]]["influence"]) for text in shown]
    towards = [value for value in influences if value > 0]
    assert influences[: len(towards)] == sorted(towards, reverse=True)
    assert influences[len(towards) : len(towards) + 2] == sorted(influences)[:2]


def test_the_pictures_are_the_crops_that_the_networks_saw(reported: Outcome, pristine: Path) -> None:
    shown = pictures(page(reported.out, "p00001.html"))
    assert len(shown) >= 12
    for name, pixels in shown.items():
        assert apart(pixels, look(pristine / "S001" / name, pristine.resolve(), 112).crop) < 6


def test_pictures_of_another_camera_are_rescaled_as_in_the_run(pristine: Path, tmp_path: Path) -> None:
    bundle = stating(TINY, tmp_path / "bundle")
    out = score(pristine, tmp_path / "out", bundle=bundle, pixel_size=2 * KNOWN).out
    for name, pixels in pictures(page(out, "p00001.html")).items():
        path, root = pristine / "S001" / name, pristine.resolve()
        assert apart(pixels, look(path, root, 112, 2).crop) < 6
        assert apart(pixels, look(path, root, 112).crop) > 12


def test_without_the_option_no_page_and_no_jinja(pristine: Path, tmp_path: Path) -> None:
    program = (
        "import sys, infer.cli\n"
        "try: infer.cli.main()\n"
        "finally: print([name for name in sys.modules if name.startswith(('jinja2', 'infer.report'))])"
    )
    line = [sys.executable, "-c", program, str(pristine), str(tmp_path / "out"), "--bundle", str(TINY)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert names(tmp_path / "out") == RESULT_FILES


def test_a_dry_run_writes_no_page(pristine: Path, reported: Outcome, tmp_path: Path) -> None:
    out = Path(shutil.copytree(reported.out, tmp_path / "out"))
    before = pages(out)
    assert score(pristine, out, dry_run=True).code == 0
    assert pages(out) == before
    assert names(out) == names(reported.out)


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_resumed_run_gives_the_same_pages(pristine: Path, reported: Outcome, tmp_path: Path, after: int) -> None:
    cut(pristine, tmp_path, after)
    outcome = score(pristine, tmp_path, workers=1, batch_size=3)
    assert outcome.record["kept_from_earlier_starts"] == after
    assert pages(tmp_path) == pages(reported.out)


def test_a_killed_runs_half_pages_are_gone_in_the_next(pristine: Path, reported: Outcome, tmp_path: Path) -> None:
    for name in (PART, OLD, PAGES):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p00009.html").write_text("half")
    score(pristine, tmp_path)
    assert names(tmp_path) == names(reported.out)
    assert pages(tmp_path) == pages(reported.out)


def test_pages_do_not_outlive_the_tables_that_they_are_about(pristine: Path, reported: Outcome, tmp_path: Path) -> None:
    out = Path(shutil.copytree(reported.out, tmp_path / "out"))
    (out / "run.json").unlink()  # else the run would be one of another day
    cut(pristine, out)
    assert names(out) == LEFT
    (out / PAGES).mkdir()
    (out / PAGES / "index.html").write_text("old")
    (out / PAGES / "notes.txt").write_text("mine")
    score(pristine, out, report=False, fresh=True)
    assert names(out) == sorted([*RESULT_FILES, PAGES])
    assert names(out / PAGES) == ["notes.txt"]


def test_somebodys_file_where_the_pages_go_is_found_before_anything_is_scored(pristine: Path, tmp_path: Path) -> None:
    (tmp_path / PAGES).mkdir()
    (tmp_path / PAGES / "notes.txt").write_text("mine")
    for dry_run in (True, False):
        with pytest.raises(OutputError) as caught:
            score(pristine, tmp_path, dry_run=dry_run)
        assert str(caught.value) == (
            f"{tmp_path / PAGES / 'notes.txt'}: is no page, and lies where the pages go. Move it elsewhere, or choose "
            "another folder"
        )
        assert names(tmp_path) == [PAGES]
    shutil.rmtree(tmp_path / PAGES)
    (tmp_path / PAGES).write_text("a file")
    with pytest.raises(OutputError, match="report: is no folder, and the pages go there"):
        score(pristine, tmp_path)
    assert score(pristine, tmp_path, report=False).code == 0


def test_an_unknown_language_is_2_before_anything_is_scored(pristine: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--language de: there are no texts in it"):
        score(pristine, tmp_path / "out", language="de")
    assert not (tmp_path / "out").exists()


def test_french(pristine: Path, tmp_path: Path) -> None:
    out = score(pristine, tmp_path, language="fr").out
    assert "Pas un dispositif médical" in page(out).text
    assert names(out / PAGES) == SIX
    assert json.loads((out / "run.json").read_text())["options"]["language"] == "fr"


def test_an_id_that_is_html_does_no_harm(cohort: Path, tmp_path: Path) -> None:
    (cohort / "S002").rename(cohort / HOSTILE)
    (cohort / HOSTILE / "000000.jpg").rename(cohort / HOSTILE / f"{HOSTILE}.jpg")
    table = (cohort / TABLE).read_text().replace(",S002,", f",{HOSTILE},")
    (cohort / TABLE).write_text(table)
    out = score(cohort, tmp_path / "out").out
    view = page(out, "p00002.html")
    assert view.one("h1") == f"Patient {HOSTILE}"
    assert f"{HOSTILE}.jpg" in view.text
    assert [e.attributes for e in view.all("img") if not e.attributes["src"].startswith("data:image/jpeg;")] == []
    assert page(out).all("img") == []


def test_refused_and_failed_patients_have_a_page_too(cohort: Path, tmp_path: Path) -> None:
    shutil.rmtree(cohort / "S001")
    runs.set_count(cohort, "S003", "")
    replace_picture(cohort / "S004" / "000000.jpg", b"")
    outcome = score(cohort, tmp_path / "out")
    assert outcome.code == 3
    index = page(outcome.out)
    assert [e.text.strip() for e in index.all("h3")] == [
        "Failed: The patient has no folder",
        "Refused: The lymphocyte count is missing",
    ]
    assert page(outcome.out, "p00003.html").one("q") == "LYMPH_COUNT in line 4 is empty"
    assert page(outcome.out, "p00004.html").rows("rejected")[0][0] == "000000.jpg"


# Pictures that are gone or changed when the page is written


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Something to do once the tables are complete and before the pages are written."""
    works, what = read_header, list[Any]()

    def first(path: Path) -> Header:
        for one in what:
            one()
        return works(path)

    monkeypatch.setattr("infer.report.write.read_header", first)
    yield what
    assert what


def test_no_picture_can_be_read_any_more(cohort: Path, reported: Outcome, tmp_path: Path, between: list[Any]) -> None:
    between.append(lambda: shutil.rmtree(cohort / "S002"))
    outcome = score(cohort, tmp_path / "out")
    assert outcome.code == 0
    assert outcome.csv_bytes == reported.csv_bytes
    view = page(outcome.out, "p00002.html")
    assert "None of this patient's pictures could be read when this page was written." in view.text
    assert view.all("img") == []
    assert {e.text.strip() for e in view.all("div", class_="missing")} == {"cannot be read any more"}
    others = {name: data for name, data in pages(reported.out).items() if name != "p00002.html"}
    assert {name: data for name, data in pages(outcome.out).items() if name != "p00002.html"} == others


def test_a_picture_that_changes_meanwhile_is_not_shown(
    cohort: Path, tmp_path: Path, between: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    other = (cohort / "S003" / "000001.jpg").read_bytes()
    between.append(lambda: replace_picture(cohort / "S002" / "000000.jpg", other))
    outcome = score(cohort, tmp_path / "out")
    assert outcome.code == 0
    view = page(outcome.out, "p00002.html")
    assert [e.text.strip() for e in view.all("div", class_="missing")] == ["has changed since it was scored"]
    assert "S002: 1 pictures changed after they were scored; the page says so" in caplog.text


# A full disk


def test_a_disk_too_full_for_the_pages_keeps_the_tables(
    pristine: Path, reported: Outcome, tmp_path: Path, between: list[Any]
) -> None:
    """A page is larger than the limit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    between.append(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1])))
    try:
        with pytest.raises(OutputError) as caught:
            score(pristine, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 7
    assert "The tables are complete: write the pages with python -m infer.report" in str(caught.value)
    assert names(tmp_path) == RESULT_FILES
    assert Outcome(0, tmp_path).csv_bytes == reported.csv_bytes


@pytest.mark.parametrize(("call", "at"), [("fsync", 1), ("fsync", 2), ("rename", 1), ("rename", 2), ("mkdir", 1)])
def test_nothing_of_the_pages_is_left_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    (tmp_path / PAGES).mkdir()
    (tmp_path / PAGES / "index.html").write_text("old")
    (tmp_path / OLD).mkdir()
    (tmp_path / OLD / "index.html").write_text("of a killed run")
    works, calls = getattr(os, call), list[Any]()

    def full(*arguments: Any, **named: Any) -> None:
        calls.append(arguments)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        works(*arguments, **named)

    def write() -> None:
        with new_pages(tmp_path) as new:
            new.write("index.html", "new")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            write()
    assert names(tmp_path) == [PAGES]
    assert (tmp_path / PAGES / "index.html").read_text() == "old"
    write()
    assert names(tmp_path) == [PAGES]
    assert (tmp_path / PAGES / "index.html").read_text() == "new"


def test_nothing_of_the_pages_is_left_after_a_signal(tmp_path: Path) -> None:
    def stopped() -> None:
        with new_pages(tmp_path) as new:
            new.write("p00001.html", "x")
            sys.exit(143)

    with pytest.raises(SystemExit):
        stopped()
    assert names(tmp_path) == []


def test_only_pages_are_written_and_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no page's name"):
        Pages(tmp_path).write("../x.html", "")
    (tmp_path / PAGES).mkdir()
    for name in ("index.html", "index-2.html", "by-id.html", "p00001.html", "p123456.html", "px.html", "a.html"):
        (tmp_path / PAGES / name).write_text("")
    remove_pages(tmp_path)
    assert names(tmp_path / PAGES) == ["a.html", "px.html"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text("")
    shutil.rmtree(tmp_path / PAGES)
    (tmp_path / PAGES).symlink_to(tmp_path / "other")
    remove_pages(tmp_path)
    assert names(tmp_path / "other") == ["index.html"]
    with pytest.raises(OutputError, match="is no folder"):
        check_pages(tmp_path)


def test_the_umask_takes_away_more(pristine: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        score(pristine, tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / PAGES).iterdir()} == {0o600}


def test_the_log_says_that_pages_were_written(pristine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lympho")
    score(pristine, tmp_path)
    assert "pages of 6 patients written" in (tmp_path / "run.log").read_text()


def test_names_that_are_not_utf_8(cohort: Path, tmp_path: Path) -> None:
    picture = cohort / "S002" / "000000.jpg"
    picture.rename(picture.with_name(os.fsdecode(b"\xff000.jpg")))
    out = score(cohort, tmp_path / "out").out
    assert r"\udcff000.jpg" in page(out, "p00002.html").text
    with (out / "images.csv").open(newline="") as file:
        assert any(row["image"] == r"\udcff000.jpg" for row in csv.DictReader(file))
