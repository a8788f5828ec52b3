"""OUT/fhir: whole or not at all, never beside another run's tables, and nobody's file is lost."""

import errno
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from infer.errors import LymphoError, OutputError, UsageError
from infer.fhir import write
from infer.fhir.command import command
from infer.output.exchange import broke_off, exchange, settle
from infer.output.kept import KEPT
from infer.output.kinds import FHIR, LIST
from infer.output.names import NAMES, part_of
from infer.output.pages import new_pages, remove_pages
from infer.output.results import Results
from tests.infer import runs
from tests.infer.fhir_documents import SYSTEM, documents
from tests.infer.runs import RESULT_FILES, TINY, Cut, Outcome, cut, keep_patients, names

ROOT = Path(__file__).parents[2]
FOLDER = FHIR.folder
ASKED: dict[str, Any] = {"bundle": TINY, "fhir": "r4", "fhir_identifier_system": SYSTEM}
SEVEN = [LIST, *(f"S00{number}.json" for number in range(1, 7)), "_model-card.json"]


@pytest.fixture(scope="module")
def documented(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return runs.score(pristine, tmp_path_factory.mktemp("documented") / "out", **ASKED)


@pytest.fixture
def out(documented: Outcome, tmp_path: Path) -> Path:
    """A copy of a finished run with documents."""
    return Path(shutil.copytree(documented.out, tmp_path / "out"))


def test_they_are_the_groups(out: Path) -> None:
    assert names(out / FOLDER) == SEVEN
    assert (out / FOLDER / LIST).read_text().splitlines() == SEVEN[1:]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (out / FOLDER).iterdir()} == {0o640}
    assert stat.S_IMODE((out / FOLDER).stat().st_mode) == 0o750


def test_they_go_with_their_tables(out: Path, cohort: Path) -> None:
    runs.score(cohort, out, bundle=TINY)
    assert names(out) == RESULT_FILES


def test_they_are_replaced_by_the_next_runs(out: Path, cohort: Path) -> None:
    runs.score(keep_patients(cohort, "S002"), out, **ASKED)
    assert names(out / FOLDER) == [LIST, "S002.json", "_model-card.json"]
    assert names(out) == sorted([*RESULT_FILES, FOLDER])


def test_they_stay_until_the_next_runs_tables_are_complete(
    out: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = documents(out)
    monkeypatch.setattr(Results, "finish", _cut)
    with pytest.raises(Cut):
        runs.score(cohort, out, **ASKED)
    assert documents(out) == before


def _cut(*_: Any) -> None:
    raise Cut


def test_a_killed_exchange_is_set_right(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documents of the tables that are back are back as well."""
    before = documents(out)
    for name in NAMES:
        part_of(out, name).write_text("today's")
    with monkeypatch.context() as patch:
        patch.setattr("infer.output.exchange.earlier_of", _cut)
        with pytest.raises(Cut):
            exchange(out)
    assert FOLDER not in names(out)
    assert broke_off(out)
    settle(out)
    assert documents(out) == before


@pytest.mark.parametrize("name", ["S009.json", "notes.txt", "index.html"])
def test_somebodys_file_stops_a_run_and_is_never_removed(out: Path, cohort: Path, name: str) -> None:
    (out / FOLDER / name).write_text("mine")
    with pytest.raises(OutputError) as caught:
        runs.score(cohort, out, **ASKED)
    assert str(caught.value) == (
        f"{out / FOLDER / name}: is no document of an earlier run, and lies where the documents go. Move it elsewhere, "
        "or choose another folder"
    )
    assert names(out / FOLDER) == sorted([*SEVEN, name])
    runs.score(cohort, out, bundle=TINY)  # without documents: the earlier ones go with their tables
    assert names(out / FOLDER) == [name]
    assert (out / FOLDER / name).read_text() == "mine"


def test_a_folder_without_a_list_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "S001.json").write_text("mine")
    remove_pages(tmp_path)
    assert names(tmp_path / FOLDER) == ["S001.json"]
    with pytest.raises(OutputError, match=r"S001\.json: is no document of an earlier run"), new_pages(tmp_path, FHIR):
        pass


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    for name in (FHIR.part, FHIR.old):
        (tmp_path / name).mkdir()
        (tmp_path / name / "S001.json").write_text("half")
    with new_pages(tmp_path, FHIR) as new:
        new.write("S002.json", "{}")
    assert names(tmp_path) == [FOLDER]
    assert names(tmp_path / FOLDER) == [LIST, "S002.json"]


def test_a_full_disk_leaves_the_tables(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "out" / FHIR.part / "S001.json"))

    monkeypatch.setattr(write, "_write", full)
    with pytest.raises(OutputError) as caught:
        runs.score(cohort, tmp_path / "out", **ASKED)
    assert str(caught.value) == (
        f"{tmp_path / 'out' / FHIR.part / 'S001.json'}: cannot be read or written (No space left on device): no FHIR "
        "documents. Put it right. The tables are complete: write the documents with python -m infer.fhir"
    )
    assert names(tmp_path / "out") == RESULT_FILES


# python -m infer.fhir


def later(patients: Path, out: Path, *options: str) -> int:
    line = [str(patients), str(out), "--bundle", str(TINY), "--fhir", "r4", "--fhir-identifier-system", SYSTEM]
    code: int = command.main([*line, *options], standalone_mode=False)
    return code


@pytest.mark.parametrize("options", [{}, {"report": True}, {"language": "fr"}])
def test_later_they_are_the_same_bytes(pristine: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    in_the_run = runs.score(pristine, tmp_path / "run", **ASKED, **options).out
    out = runs.score(pristine, tmp_path / "out", bundle=TINY).out
    given = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
    assert later(pristine, out, *given) == 0
    read = [{path.name: path.read_bytes() for path in (one / FOLDER).iterdir()} for one in (in_the_run, out)]
    assert read[0] == read[1]


def test_later_with_codes_and_with_a_bad_system(pristine: Path, out: Path, tmp_path: Path) -> None:
    codes = tmp_path / "codes.toml"
    codes.write_text('report = { system = "urn:oid:2.7", code = "A" }')
    assert later(pristine, out, f"--codes={codes}") == 0
    assert '"urn:oid:2.7"' in (out / FOLDER / "S001.json").read_text()
    with pytest.raises(UsageError, match="is no URI"):
        later(pristine, out, "--fhir-identifier-system=hospital")


def test_later_from_another_runs_results_is_2(pristine: Path, out: Path, tmp_path: Path) -> None:
    """A copy of the visible files alone leaves the hidden ones of the run before."""
    other = runs.score(pristine, tmp_path / "other", bundle=TINY, operating_point="sensitivity-95").out
    shutil.copy(other / KEPT, out / KEPT)
    with pytest.raises(UsageError, match=r"run\.json and the hidden \.results are of two runs"):
        later(pristine, out)


def test_pages_that_fail_do_not_let_the_documents_be_forgotten(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OutputError("no pages")

    monkeypatch.setattr("infer.report.write.write_report", fails)
    with pytest.raises(OutputError, match=r"with python -m infer\.report, the documents with python -m infer\.fhir"):
        runs.score(cohort, tmp_path / "out", **ASKED, report=True)


def test_later_without_a_finished_run_is_2(pristine: Path, tmp_path: Path) -> None:
    cut(pristine, tmp_path / "begun")
    with pytest.raises(LymphoError, match=r"is not finished\. Start it again: it resumes; then write the documents"):
        later(pristine, tmp_path / "begun")


def test_later_as_a_process(pristine: Path, out: Path) -> None:
    line = [sys.executable, "-m", "infer.fhir", str(pristine), str(out), "--bundle", str(TINY), "--fhir", "r5"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "Missing option '--fhir-identifier-system'" in done.stderr) == (2, True)
    line += ["--fhir-identifier-system", SYSTEM]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FHIR documents of 6 patients written" in done.stderr
    assert "deviceName" not in json.dumps(documents(out))


def test_the_command_is_helped() -> None:
    assert "Not a medical device." in CliRunner().invoke(command, ["--help"]).output
