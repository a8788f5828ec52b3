"""--metrics: what a monitor of machines reads, whatever became of the run."""

import datetime as dt
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from infer import __version__
from infer.errors import LymphoError, UsageError
from infer.output.metrics import Metrics, labels
from infer.output.results import Results
from tests.infer.runs import TINY, Cut, score, set_count

SAMPLE = re.compile(r'([a-z_]+)((?:\{[a-z]+="[^"\n]*"(?:,[a-z]+="[^"\n]*")*\})?) (-?[0-9.e+-]+)')
RUN = re.compile(r'\{run="([^"]*)",?(.*)\}')
STARTED = dt.datetime(2026, 11, 28, 2, 0, tzinfo=dt.UTC)
COUNTED = ["lympho_run_patients", "lympho_run_decided_patients", "lympho_run_unlike_patients", "lympho_run_pictures"]
ALWAYS = [
    "lympho_run_exit_code",
    "lympho_run_start_timestamp_seconds",
    "lympho_run_end_timestamp_seconds",
    "lympho_run_duration_seconds",
    "lympho_build_info",
]


def parsed(text: str) -> dict[str, float]:
    """Samples by name and labels, read by the common ground of both formats: each metric declared before its samples.

    No parser of Prometheus is in the runtime's environment: tests/formats has its own two read the same text.
    """
    *lines, last, nothing = text.split("\n")
    assert (last, nothing) == ("# EOF", "")
    found: dict[str, float] = {}
    families: list[str] = []
    runs = set()
    for line in lines:
        if line.startswith("# HELP "):
            families.append(line.split()[2])
        elif line.startswith("# "):
            word, name, rest = line[2:].split(" ", 2)
            assert name == families[-1]
            assert (word, rest) == ("TYPE", "gauge") or (word == "UNIT" and name.endswith(f"_{rest}"))
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == families[-1]
            run, rest = RUN.fullmatch(match[2]).groups()  # type: ignore[union-attr]
            runs.add(run)
            found[match[1] + (f"{{{rest}}}" if rest else "")] = float(match[3])
    assert len(set(families)) == len(families)
    assert len(runs) == 1  # one label for all, which tells this file's samples from another's; left out here
    assert len(found) == sum(not line.startswith("#") for line in lines)
    return found


def read(path: Path) -> dict[str, float]:
    return parsed(path.read_text(encoding="utf-8"))


def families(found: dict[str, float]) -> list[str]:
    return list(dict.fromkeys(name.partition("{")[0] for name in found))


def test_after_a_run_that_finished(cohort: Path, tmp_path: Path) -> None:
    set_count(cohort, "S003", "-1")
    (cohort / "S004").rename(cohort / "elsewhere")
    (cohort / "S001" / "broken.jpg").write_bytes(b"")
    path = tmp_path / "lympho.prom"
    before = dt.datetime.now(dt.UTC).timestamp()
    outcome = score(cohort, tmp_path / "out", bundle=TINY, metrics=path)
    found, record = read(path), outcome.record
    assert families(found) == [*ALWAYS, *COUNTED, "lympho_run_drift"]
    assert found["lympho_run_exit_code"] == outcome.code == 3
    begun, ended = (found[f"lympho_run_{one}_timestamp_seconds"] for one in ("start", "end"))
    assert before <= begun <= ended <= dt.datetime.now(dt.UTC).timestamp()
    assert found["lympho_run_duration_seconds"] == pytest.approx(ended - begun, abs=1e-6)
    assert found[f'lympho_build_info{{version="{__version__}",bundle="{record["bundle"]["id"]}"}}'] == 1
    for status, number in {"scored": 4, "refused": 1, "failed": 1}.items():
        assert found[f'lympho_run_patients{{status="{status}"}}'] == number == record["patients"][status]
    for decision in ("malignant", "reactive", "refer"):
        assert found[f'lympho_run_decided_patients{{decision="{decision}"}}'] == record["decisions"][decision]
    for status in ("used", "rejected"):
        assert found[f'lympho_run_pictures{{status="{status}"}}'] == record["images"][status] > 0
    assert found["lympho_run_unlike_patients"] == record["patients_unlike_training"]
    assert found["lympho_run_drift"] == record["drift"]["changed"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044  # the exporter is another user
    assert sorted(os.listdir(tmp_path)) == ["lympho.prom", "out", "patients"]


@pytest.mark.parametrize(
    ("code", "options"),
    [
        (2, {"operating_point": "none"}),
        (2, {"fhir": "r4"}),
        (4, {"annotations": Path("/nowhere.csv")}),
        (5, {"bundle": Path("/nowhere")}),
        (6, {"device": "cuda"}),
        (7, {"out": Path("/dev/null/out")}),
    ],
)
def test_what_stops_a_run_before_anything_is_scored(
    pristine: Path, tmp_path: Path, code: int, options: dict[str, Any]
) -> None:
    """What is not known is left out: no count of an earlier night stays."""
    path = tmp_path / "lympho.prom"
    score(pristine, tmp_path / "out", bundle=TINY, metrics=path)
    options = {"bundle": TINY, "out": tmp_path / "out", "metrics": path, **options}
    with pytest.raises(LymphoError) as caught:
        score(pristine, **options)
    assert caught.value.exit_code == code
    found = read(path)
    assert found["lympho_run_exit_code"] == code
    assert families(found) == ALWAYS


def test_another_run_holds_out(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.infer.test_results import HEADER

    monkeypatch.setattr("infer.output.lock.PATIENCE", 0)
    with Results(tmp_path / "out", HEADER, "now", None), pytest.raises(LymphoError):
        score(pristine, tmp_path / "out", metrics=tmp_path / "lympho.prom")
    assert read(tmp_path / "lympho.prom")["lympho_run_exit_code"] == 8


@pytest.mark.parametrize(
    ("end", "code"), [(SystemExit(143), 143), (SystemExit(130), 130), (MemoryError(), 1), (ValueError("a bug"), 1)]
)
def test_a_run_that_broke_off_has_counted_so_far(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException, code: int
) -> None:
    def breaks(*_: Any) -> None:
        raise end

    monkeypatch.setattr(Results, "write", breaks)
    with pytest.raises(type(end)):
        score(pristine, tmp_path / "out", bundle=TINY, metrics=tmp_path / "m.prom")
    found = read(tmp_path / "m.prom")
    assert found["lympho_run_exit_code"] == code
    assert families(found) == [*ALWAYS, *COUNTED]
    assert found['lympho_run_patients{status="scored"}'] == 1


def test_a_killed_run_leaves_the_last_ones(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time tells a monitor that nothing came since."""
    path = tmp_path / "m.prom"
    score(pristine, tmp_path / "out", bundle=TINY, metrics=path)
    before = path.read_bytes()

    def killed(*_: Any) -> None:
        raise Cut

    monkeypatch.setattr("infer.run._run", killed)
    monkeypatch.setattr("infer.run.tell_last_run", killed)
    with pytest.raises(Cut):
        score(pristine, tmp_path / "out", bundle=TINY, metrics=path)
    assert path.read_bytes() == before


def test_a_dry_run_leaves_it(pristine: Path, tmp_path: Path) -> None:
    assert score(pristine, tmp_path / "out", bundle=TINY, dry_run=True, metrics=tmp_path / "m.prom").code == 0
    assert os.listdir(tmp_path) == []


def test_where_it_may_not_lie(cohort: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear")
    history = tmp_path / "history"
    out = tmp_path / "out"
    score(cohort, out, bundle=TINY, history=history)
    lines, before = history.read_bytes(), sorted(cohort.rglob("*"))
    for path, says in (
        (cohort / "m.prom", "lies inside the cohort"),
        (cohort / "S001" / "m.prom", "lies inside the cohort"),
        (out / "run.json", "is a file that every run replaces"),
        (history, "is a file that every run replaces"),
        (TINY / "m.prom", "lies inside the bundle"),
        (out / "report" / "m.prom", f"lies inside {re.escape(str(out))}/report, which holds nothing but"),
        (out / "fhir" / "m.prom", f"lies inside {re.escape(str(out))}/fhir, which holds nothing but"),
        (out / ".run.json.earlier", "is a file that every run replaces"),
        (letter, "is a file of another kind"),
    ):
        with pytest.raises(UsageError, match=f"--metrics {re.escape(str(path))}: {says}"):
            score(cohort, out, bundle=TINY, metrics=path, history=history)
    assert (letter.read_text(), history.read_bytes()) == ("Dear", lines)
    assert sorted(cohort.rglob("*")) == before
    assert not (TINY / "m.prom").exists()


@pytest.mark.parametrize("name", ["", ".", "/", "folder", "pipe"])
def test_what_is_no_place_for_a_file_is_2_at_once(pristine: Path, tmp_path: Path, name: str) -> None:
    """An unset variable gives an empty name; a pipe without a reader would be waited for."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = Path(name) if name in ("", ".", "/") else tmp_path / name
    with pytest.raises(UsageError, match=r"is no place for a file\. Give a name ending in \.prom"):
        score(pristine, tmp_path / "out", bundle=TINY, metrics=path)
    assert not (tmp_path / "out").exists()


def test_it_may_be_read_by_everybody_whatever_the_umask_and_follows_a_link(pristine: Path, tmp_path: Path) -> None:
    link, target = tmp_path / "m.prom", tmp_path / "target.prom"
    target.write_text("# HELP lympho_run_exit_code old\n")
    link.symlink_to(target)
    before = os.umask(0o077)
    try:
        score(pristine, tmp_path / "out", bundle=TINY, metrics=link)
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert read(target)["lympho_run_exit_code"] == 0


def test_two_files_of_one_folder_can_be_told_apart(pristine: Path, tmp_path: Path) -> None:
    """The exporter takes one of two samples that differ in nothing."""
    texts = []
    for name in ("shard-0.prom", "shard-1.prom"):
        score(pristine, tmp_path / "out", bundle=TINY, metrics=tmp_path / name)
        texts.append((tmp_path / name).read_text())
    found = [{line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")} for text in texts]
    assert found[0] & found[1] == set()
    assert 'lympho_run_exit_code{run="shard-0"}' in found[0]


def test_that_it_cannot_be_written_changes_nothing_else(
    pristine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing" / "m.prom"
    assert score(pristine, tmp_path / "out", bundle=TINY, metrics=missing).code == 0
    assert f"--metrics {missing}: cannot be written (No such file or directory)" in caplog.text
    too_long = tmp_path / f"{'x' * 300}.prom"
    assert score(pristine, tmp_path / "out", bundle=TINY, metrics=too_long).code == 0
    assert f"--metrics {too_long}: cannot be written (File name too long)" in caplog.text
    metrics = Metrics(tmp_path / "m.prom", STARTED, checked=True)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("infer.machine.disk.sync", full)
    metrics.write(STARTED, 0)
    assert "cannot be written (No space left on device)" in caplog.text
    assert not list(tmp_path.glob("*.prom*")) + list(tmp_path.glob(".*"))


def test_it_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it finds the old or the new one: the exporter does not read the name under which it is written."""
    path = tmp_path / "m.prom"
    path.write_text("# HELP lympho_run_exit_code old\n")
    seen = []
    rename = Path.rename

    def look(self: Path, target: Path) -> Path:
        seen.append((path.read_text(), self.name, parsed(self.read_text())["lympho_run_exit_code"]))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look)
    Metrics(path, STARTED, checked=True).write(STARTED, 4)
    assert seen == [("# HELP lympho_run_exit_code old\n", ".m.prom.part", 4)]
    assert read(path)["lympho_run_exit_code"] == 4


def test_labels_are_escaped() -> None:
    assert labels(a='x"y\\z\n') == '{a="x\\"y\\\\z\\n"}'
