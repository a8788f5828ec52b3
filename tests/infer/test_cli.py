"""The command line as the scheduler sees it. Most runs stay in this process; a few go through `python -m infer`."""

import datetime as dt
import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from infer.bundle.load import CHECKSUMS, REFERENCE
from infer.cli import command
from infer.errors import EXIT_MEANING, BundleError, CohortError, LymphoError, OutputError, UsageError
from infer.output.journal import JOURNAL
from infer.output.names import LAST_RUN
from infer.output.progress import Progress
from tests.infer.runs import (
    RESULT_FILES,
    TABLE,
    Outcome,
    keep_patients,
    names,
    score,
    set_count,
    tiny_manifest,
    write_bundle,
)

ROOT = Path(__file__).parents[2]
DATE = ["--reference-date", "2019-07-01"]


def infer(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m infer` without a visible GPU."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, "-m", "infer", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_from_the_command_line(plain: Outcome, pristine: Path, tmp_path: Path) -> None:
    done = infer(pristine, tmp_path / "out", *DATE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    outcome = Outcome(0, tmp_path / "out")
    assert outcome.csv_bytes == plain.csv_bytes
    assert outcome.record["device"]["asked"] == "auto"
    assert outcome.record["device"]["provider"] == "CPUExecutionProvider"
    for text in (done.stderr, (outcome.out / "run.log").read_text()):
        assert "6 scored, 0 refused, 0 failed; once all is written, exit code 0: finished" in text


def test_help_and_version() -> None:
    shown = infer("--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("Usage: python -m infer [OPTIONS] PATIENTS OUT")
    assert infer("--version").stdout == "lympho, version 0.1.0\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["only-one"],
        ["a", "b", "--unknown"],
        ["a", "b", "--device", "tpu"],
        ["a", "b", "--reference-date", "1.7.2019"],
        ["a", "b", "--max-refused", "1.5"],
        ["a", "b", "--batch-size", "0"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    found = CliRunner().invoke(command, arguments, standalone_mode=True)
    assert found.exit_code == 2
    assert "Usage: " in found.output


def test_wrong_usage_is_2_for_the_process_too() -> None:
    done = infer("only-one")
    assert done.returncode == 2
    assert "Missing argument 'OUT'" in done.stderr


def test_the_device_that_is_not_there_is_6(pristine: Path, tmp_path: Path) -> None:
    done = infer(pristine, tmp_path / "out", "--device", "cuda", *DATE)
    assert done.returncode == 6
    assert done.stderr.startswith("Error: --device cuda: ")
    assert "Use --device cpu or auto" in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_such_cohort_is_4_for_the_process_too(tmp_path: Path) -> None:
    done = infer(tmp_path / "nowhere", tmp_path / "out")
    assert done.returncode == 4
    assert done.stderr == f"Error: {tmp_path / 'nowhere'}: no such folder of patients\n"
    assert not (tmp_path / "out").exists()


def error_of(patients: Path, out: Path, **options: object) -> LymphoError:
    with pytest.raises(LymphoError) as caught:
        score(patients, out, **options)
    return caught.value


def test_a_path_that_may_not_be_read_is_not_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated, because root may read everything."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    (tmp_path / "bundle").mkdir()
    arguments = [str(tmp_path / "patients"), str(tmp_path / "out"), "--bundle", str(tmp_path / "bundle")]
    found = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert isinstance(found.exception, BundleError)


@pytest.mark.parametrize("dry_run", [False, True])
def test_out_that_is_a_link_to_nowhere_is_7(pristine: Path, tmp_path: Path, dry_run: bool) -> None:
    (tmp_path / "out").symlink_to("nowhere")
    assert error_of(pristine, tmp_path / "out", dry_run=dry_run).exit_code == 7


def test_a_circle_of_links_has_its_places_exit_code(pristine: Path, tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    assert error_of(circle, tmp_path / "out").exit_code == 4
    assert error_of(pristine, tmp_path / "out", bundle=circle).exit_code == 5
    assert error_of(pristine, circle).exit_code == 7


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"date_format": "%d/%m/%y"}, "--date-format %d/%m/%y: two-digit years"),
        ({"sample_date_format": "%m/%Y"}, "--sample-date-format %m/%Y: must give day, month and year"),
        ({"sex_codes": "M"}, "--sex-codes M: must name a code for male and one for female"),
        ({"settle": -1.0}, "--settle: must be from 0 to 86400 seconds"),
        ({"settle": float("inf")}, "--settle: must be from 0 to 86400 seconds"),
        ({"settle": float("nan")}, "--settle: must be from 0 to 86400 seconds"),
    ],
)
def test_options_that_say_nothing_are_2_before_anything_is_read(
    tmp_path: Path, options: dict[str, object], says: str
) -> None:
    error = error_of(tmp_path / "nowhere", tmp_path / "out", **options)
    assert (error.exit_code, says in str(error)) == (2, True)


def test_samples_may_have_two_digit_years(tmp_path: Path) -> None:
    assert error_of(tmp_path / "nowhere", tmp_path / "out", sample_date_format="%d/%m/%y").exit_code == 4


def test_a_terminal_closed_under_way_stops_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, _: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Closed())
    Progress(1).advance(3)


def test_an_unknown_operating_point_is_2(pristine: Path, tmp_path: Path) -> None:
    error = error_of(pristine, tmp_path / "out", operating_point="sensitivity-100")
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    expected = "sensitivity-100: not in this bundle. Choose from balanced, sensitivity-95, sensitivity-98"
    assert str(error) == f"--operating-point {expected}"
    assert not (tmp_path / "out").exists()


def test_an_operating_point_that_only_this_bundle_has_can_be_chosen(pristine: Path, tmp_path: Path) -> None:
    """The reference bundle, which does not have it, is refused with 2."""
    manifest = tiny_manifest()
    manifest["ensemble"]["operating_points"]["refer-everyone"] = {"refer_low": 0.0, "refer_high": 1.0}
    bundle, out = write_bundle(tmp_path / "bundle", manifest), tmp_path / "out"
    line = [str(pristine), str(out), "--device", "cpu", *DATE, "--operating-point", "refer-everyone"]
    found = CliRunner().invoke(command, [*line, "--bundle", str(bundle)], standalone_mode=False)
    assert (found.exception, found.return_value) == (None, 0)
    outcome = Outcome(0, out)
    assert {row["decision"] for row in outcome.predictions.values()} == {"refer"}
    assert outcome.record["options"]["operating_point"] == "refer-everyone"
    refused = CliRunner().invoke(command, line, standalone_mode=False)
    assert isinstance(refused.exception, UsageError)


@pytest.mark.parametrize("inside", [".", "out", "S001/out", "../patients/out"])
def test_out_inside_patients_is_2(cohort: Path, inside: str) -> None:
    error = error_of(cohort, cohort / inside)
    assert isinstance(error, UsageError)
    assert "lies inside the cohort" in str(error)
    assert names(cohort) == ["S001", "S002", "S003", "S004", "S005", "S006", TABLE]


def test_out_inside_patients_by_a_link_is_2(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(cohort)
    assert error_of(cohort, tmp_path / "link" / "out").exit_code == 2
    assert not (cohort / "out").exists()


def test_a_bundle_or_table_that_out_would_overwrite_is_2(pristine: Path, tmp_path: Path) -> None:
    for options in ({"bundle": tmp_path / "out" / "bundle"}, {"annotations": tmp_path / "out" / "table.csv"}):
        error = error_of(pristine, tmp_path / "out", **options)
        assert isinstance(error, UsageError)
        assert str(next(iter(options.values()))) in str(error)


def test_a_cohort_that_cannot_be_read_is_4(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    header = (cohort / TABLE).read_text().splitlines(keepends=True)[0]
    (cohort / TABLE).write_text(header)
    errors = [error_of(cohort, out), error_of(tmp_path / "nowhere", out)]
    (cohort / TABLE).unlink()
    errors.append(error_of(cohort, out))
    errors.append(error_of(cohort, out, annotations=tmp_path / "nowhere.csv"))
    assert [type(error) for error in errors] == [CohortError] * 4
    assert {error.exit_code for error in errors} == {4}
    assert not out.exists()


def test_a_bad_bundle_is_5_before_anything_else_is_looked_at(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(REFERENCE, bundle)
    data = bytearray((bundle / "scan.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "scan.onnx").write_bytes(data)
    error = error_of(tmp_path / "nowhere", tmp_path / "out", bundle=bundle)
    assert isinstance(error, BundleError)
    assert error.exit_code == 5
    assert str(bundle / "scan.onnx") in str(error)
    missing = error_of(tmp_path / "nowhere", tmp_path / "out", bundle=tmp_path / "none")
    assert missing.exit_code == 5


@pytest.mark.parametrize("dry_run", [False, True])
def test_out_that_is_a_file_is_7(pristine: Path, tmp_path: Path, dry_run: bool) -> None:
    (tmp_path / "out").write_text("a file")
    error = error_of(pristine, tmp_path / "out", dry_run=dry_run)
    assert isinstance(error, OutputError)
    assert error.exit_code == 7
    assert str(tmp_path / "out") in str(error)
    assert (tmp_path / "out").read_text() == "a file"


def test_the_folder_is_missing_and_back_again(plain: Outcome, cohort: Path, tmp_path: Path) -> None:
    keep_patients(cohort, "S003", "S004")
    (cohort / "S004").rename(tmp_path / "away")
    missing = infer(cohort, tmp_path / "out", *DATE)
    assert missing.returncode == 3
    assert "S004 failed (folder_missing)" in missing.stderr
    (tmp_path / "away").rename(cohort / "S004")
    back = score(cohort, tmp_path / "out")
    assert back.code == 0
    assert back.predictions == {name: plain.predictions[name] for name in ("S003", "S004")}


def test_max_refused(cohort: Path, tmp_path: Path) -> None:
    for patient_id in ("S001", "S002"):
        set_count(cohort, patient_id, "0")
    codes = {
        share: score(cohort, tmp_path / "out", max_refused=share, dry_run=True).code for share in (0.0, 0.33, 0.34, 1.0)
    }
    assert codes == {0.0: 3, 0.33: 3, 0.34: 0, 1.0: 0}


def lose_a_folder(cohort: Path) -> None:
    shutil.rmtree(cohort / "S001")


def refuse_most(cohort: Path) -> None:
    for number in range(1, 5):
        set_count(cohort, f"S00{number}", "")


@pytest.mark.parametrize("change", [lose_a_folder, refuse_most])
def test_a_dry_run_has_the_same_exit_code_and_writes_nothing(
    cohort: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    assert score(cohort, out, dry_run=True).code == 0
    change(cohort)
    assert score(cohort, out, dry_run=True).code == 3
    assert not out.exists()
    assert score(cohort, out).code == 3
    before = {name: (out / name).read_bytes() for name in (*RESULT_FILES, LAST_RUN)}
    assert score(cohort, out, dry_run=True).code == 3
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_an_earlier_runs_files_are_replaced_and_others_stay(plain: Outcome, pristine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (*RESULT_FILES, "notes.txt"):
        (out / name).write_text("earlier")
    assert score(pristine, out).csv_bytes == plain.csv_bytes
    assert names(out) == sorted([*RESULT_FILES, "notes.txt"])
    assert "earlier" not in (out / "run.log").read_text()


def test_operating_points_change_decisions_and_nothing_else(plain: Outcome, pristine: Path, tmp_path: Path) -> None:
    outcome = score(pristine, tmp_path / "out", operating_point="sensitivity-98")
    for patient_id, row in outcome.predictions.items():
        other = dict.fromkeys(("decision", "refer_low", "refer_high"), "")
        assert row | other == plain.predictions[patient_id] | other
    assert outcome.record["options"]["operating_point"] == "sensitivity-98"


def test_today_is_pinned_when_no_date_is_given(cohort: Path, tmp_path: Path) -> None:
    keep_patients(cohort, "S001")
    before = dt.datetime.now(dt.UTC).date()
    outcome = score(cohort, tmp_path / "out", reference_date=None)
    pinned = dt.date.fromisoformat(outcome.record["options"]["reference_date"])
    assert before <= pinned <= dt.datetime.now(dt.UTC).date()
    month, day, year = (int(part) for part in (cohort / TABLE).read_text().splitlines()[1].split(",")[3].split("/"))
    age = (pinned - dt.date(year, month, day)).days / 365.25
    assert outcome.predictions["S001"]["age_years"] == f"{age:.2f}"


def test_the_date_format_holds_for_the_table(cohort: Path, tmp_path: Path) -> None:
    """With day first, every row has another date or none; with the right format, the cohort is the original."""
    lines = (cohort / TABLE).read_text().splitlines()
    swapped = [re.sub(r"(\d+)/(\d+)/(\d{4})", r"\2/\1/\3", line) for line in lines]
    swapped[1] = re.sub(r"\d+/\d+/\d{4}", "31/12/1950", swapped[1])
    (cohort / TABLE).write_text("\n".join(swapped) + "\n")
    error = error_of(cohort, tmp_path / "out")
    assert isinstance(error, CohortError)
    assert "line 2, column DOB" in str(error)
    assert score(cohort, tmp_path / "out", date_format="%d/%m/%Y", dry_run=True).code == 0


@pytest.mark.parametrize("date_format", ["%Q", "%", "%d/%m", "no date"])
def test_a_date_format_that_gives_no_date_is_2(pristine: Path, tmp_path: Path, date_format: str) -> None:
    error = error_of(pristine, tmp_path / "out", date_format=date_format)
    assert isinstance(error, UsageError)
    assert "--date-format" in str(error)


@pytest.mark.parametrize(("signal_sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_and_leaves_no_result(
    pristine: Path, tmp_path: Path, signal_sent: signal.Signals, code: int
) -> None:
    """The same picture 4,000 times, as hard links, so that the run is still going when the signal arrives."""
    cohort, out = tmp_path / "patients", tmp_path / "out"
    (cohort / "S001").mkdir(parents=True)
    shutil.copy(pristine / TABLE, cohort)
    for number in range(4000):
        os.link(pristine / "S001" / "000000.jpg", cohort / "S001" / f"{number}.jpg")
    line = [sys.executable, "-m", "infer", str(cohort), str(out), "--device", "cpu", *DATE]
    # In a shell's background job SIGINT is ignored, and a child process would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        signal.signal(signal.SIGINT, before)
        try:
            deadline = time.monotonic() + 60
            while not (out / ".run.log.part").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal_sent)
            assert process.wait(timeout=60) == code
        finally:
            process.kill()
    assert names(out) == [JOURNAL, ".run.log.part"]


def test_every_exit_code_has_a_meaning() -> None:
    assert sorted(EXIT_MEANING) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 137, 143]


def test_checksums_name_is_what_sha256sum_expects() -> None:
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("no sha256sum here")
    done = subprocess.run([tool, "--check", "--strict", CHECKSUMS], cwd=REFERENCE, capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2), (1,)])
def test_nothing_takes_a_closed_streams_place(closed: tuple[int, ...]) -> None:
    """Otherwise the next file opened would receive what a library prints there."""
    program = (
        f"import os; keep = os.dup(1); [os.close(one) for one in {closed}]\n"
        "from infer.machine.console import _occupy_standard_streams; _occupy_standard_streams()\n"
        "os.write(keep, ' '.join(str(os.path.samefile(f'/dev/fd/{one}', os.devnull)) for one in range(3)).encode())"
    )
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, input="", text=True, check=True)
    assert done.stdout.split() == [str(one in closed) for one in range(3)]
