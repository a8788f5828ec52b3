"""`python -m infer.report`: the pages of a finished run, written later, or a clear error."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from infer.bundle.manifest import SCHEMA
from infer.errors import LymphoError
from infer.output.checks import aside
from infer.output.journal import FORMAT
from infer.output.kept import KEPT, read_results
from infer.output.lock import held
from infer.output.pages import PAGES
from infer.report.command import command
from tests.infer import runs
from tests.infer.runs import RESULT_FILES, TINY, Outcome, cut, names, replace_picture, tiny_manifest, write_bundle
from tests.infer.test_report import pages

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plain(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return runs.score(pristine, tmp_path_factory.mktemp("plain") / "out", bundle=TINY)


@pytest.fixture
def out(plain: Outcome, tmp_path: Path) -> Path:
    """A copy of a finished run without pages."""
    return Path(shutil.copytree(plain.out, tmp_path / "out"))


def write(patients: Path, out: Path, *options: Any, bundle: Path = TINY) -> int:
    line = [str(patients), str(out), "--bundle", str(bundle), *map(str, options)]
    code: int = command.main(line, standalone_mode=False)
    return code


def error_of(*arguments: Any, **named: Any) -> tuple[int, str]:
    """Exit code and message; nothing in OUT may change."""
    out = arguments[1]
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} if out.is_dir() else None
    with pytest.raises(LymphoError) as caught:
        write(*arguments, **named)
    if before is not None:
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
        assert PAGES not in names(out)
    return caught.value.exit_code, str(caught.value)


def test_the_same_bytes_as_in_the_run(pristine: Path, out: Path, tmp_path: Path) -> None:
    assert write(pristine, out) == 0
    assert names(out) == sorted([*RESULT_FILES, PAGES])
    in_the_run = runs.score(pristine, tmp_path / "other", bundle=TINY, report=True).out
    assert pages(out) == pages(in_the_run)


def test_as_a_process(pristine: Path, out: Path) -> None:
    line = [sys.executable, "-m", "infer.report", str(pristine), str(out), "--bundle", str(TINY), "--language", "fr"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pages of 6 patients written" in done.stderr
    assert 'lang="fr"' in (out / PAGES / "index.html").read_text(encoding="utf-8")
    line[-1] = "de"
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'de' is not one of 'en', 'fr'" in done.stderr


def test_earlier_pages_are_replaced(pristine: Path, out: Path) -> None:
    write(pristine, out)
    before = pages(out)
    (out / PAGES / "p00009.html").write_text("of another table")
    write(pristine, out, "--language", "fr")
    assert pages(out).keys() == before.keys()
    assert pages(out) != before


def test_changed_pictures_are_refused(cohort: Path, out: Path) -> None:
    other = (cohort / "S003" / "000001.jpg").read_bytes()
    for name in ("000000.jpg", "000002.jpg"):
        replace_picture(cohort / "S002" / name, other)
    assert error_of(cohort, out) == (
        4,
        f"{cohort / 'S002'}: 2 pictures are not those that were scored. Score the patients again",
    )


def test_pictures_that_are_gone_leave_a_page_that_says_so(cohort: Path, out: Path) -> None:
    shutil.rmtree(cohort / "S002")
    assert write(cohort, out) == 0
    assert "could be read when this page was written" in (out / PAGES / "p00002.html").read_text(encoding="utf-8")


def test_no_folder_of_patients_is_4(out: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert error_of(missing, out) == (
        4,
        f"{missing}: is no folder. Give the folder of patients that the run scored",
    )


def test_no_finished_run_is_2(pristine: Path, tmp_path: Path) -> None:
    missing, empty, begun = tmp_path / "missing", tmp_path / "empty", tmp_path / "begun"
    empty.mkdir()
    cut(pristine, begun)
    assert error_of(pristine, missing) == (2, f"{missing}: is no folder with the results of a run")
    assert not missing.exists()
    assert error_of(pristine, empty) == (2, f"{empty}: holds no finished run (run.json is missing)")
    assert error_of(pristine, begun) == (
        2,
        f"{begun}: its run is not finished. Start it again: it resumes; then write the pages",
    )


def test_a_run_that_is_still_going_is_8(pristine: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer.output.lock.PATIENCE", 0)
    with held(out):
        code, message = error_of(pristine, out)
    assert (code, message) == (8, f"{out}: another run holds it. Wait for it to end, or choose another folder")


def test_another_bundle_is_2(pristine: Path, out: Path, tmp_path: Path, plain: Outcome) -> None:
    manifest = tiny_manifest()
    manifest["provenance"]["recipe"] = "another"
    other = write_bundle(tmp_path / "bundle", manifest)
    code, message = error_of(pristine, out, bundle=other)
    used = plain.record["bundle"]["id"][:12]
    assert code == 2
    assert message.startswith(f"--bundle {other}: is ")
    assert message.endswith(f", but {out} was scored with {used}. Give that one")


def test_another_schema_is_2(pristine: Path, out: Path) -> None:
    record = json.loads((out / "run.json").read_text())
    record["bundle"]["schema"] = SCHEMA - 1
    (out / "run.json").write_text(json.dumps(record))
    assert error_of(pristine, out) == (
        2,
        f"{out}: was scored with a bundle of schema {SCHEMA - 1}, this program reads schema {SCHEMA}. Use the version "
        "that scored it, or score the patients again",
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"bundle": {}}'])
def test_a_record_that_is_none_is_2(pristine: Path, out: Path, text: str) -> None:
    (out / "run.json").write_text(text)
    code, message = error_of(pristine, out)
    assert (code, message) == (2, f"{out / 'run.json'}: is not the record of a run. Score the patients again")


@pytest.mark.parametrize("what", ["missing", "format", "garbage", "empty"])
def test_results_of_another_version_are_2(pristine: Path, out: Path, what: str) -> None:
    path = out / KEPT
    data = path.read_bytes()
    path.unlink()
    if what == "format":
        from infer.output.journal import line_of, record_of

        first, rest = data.split(b"\n", 1)
        path.write_bytes(line_of(record_of(first + b"\n") | {"format": FORMAT - 1}) + rest)
    elif what != "missing":
        path.write_bytes(b"" if what == "empty" else b"no journal\n")
    assert error_of(pristine, out) == (
        2,
        f"{path}: is missing or of another version of this program. Score the patients again, or use the version that "
        "scored them",
    )


@pytest.mark.parametrize("what", ["cut", "shorter", "changed"])
def test_damaged_results_are_7_and_leave_no_page(pristine: Path, out: Path, what: str) -> None:
    path = out / KEPT
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    changed = data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]
    path.write_bytes({"cut": data[:-9], "shorter": b"".join(lines[:-1]), "changed": changed}[what])
    assert error_of(pristine, out) == (7, f"{path}: is damaged. Score the patients again")


def test_the_results_are_kept_in_the_tables_order(plain: Outcome) -> None:
    results = list(read_results(plain.out / KEPT, 6))
    assert [result.patient_id for result in results] == list(plain.predictions)
    assert f"{results[1].scores.probability:.6f}" == plain.predictions["S002"]["probability_malignant"]  # type: ignore[union-attr]


def test_files_that_a_killed_run_set_aside_get_their_names_back(pristine: Path, out: Path) -> None:
    for name in ("run.json", "predictions.csv"):
        (out / name).rename(aside(out / name))
    assert write(pristine, out) == 0
    assert names(out) == sorted([*RESULT_FILES, PAGES])


def test_help_says_what_it_does() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    assert "Write the evidence pages of the finished run in OUT" in text
    assert "Not a medical device." in text
