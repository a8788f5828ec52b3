"""`make soak`: many patients, and many kills. Measures memory, time per patient, and what a killed run keeps.

    .build/runtime/bin/python -m tests.soak FOLDER [--patients 20000] [--kills 50] [--bundle DIR]

Cohorts are hard links to a few synthetic pictures; the bundle is the tests' tiny one, so that the program is measured
and not the networks.
"""

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from infer.output.journal import JOURNAL, read_journal
from tests.infer.runs import TABLE, TINY, csv_bytes
from tests.synthetic import make_patients, write_cohort

ROOT = Path(__file__).parents[1]
SOURCES = 64  # different picture files; a file system allows about 60,000 links to each
IMAGES = 16  # per patient, the fewest an analyser takes
HEADER = "ID,GENDER,DOB,LYMPH_COUNT"


@dataclass(frozen=True)
class Spent:
    """Memory and time of a run."""

    seconds: float
    peak_mib: float
    decoding_mib: float  # peak of the decoding processes in the second half
    seconds_of_first_half: float  # from the first finished patient
    seconds_of_second_half: float


def write_linked_cohort(folder: Path, sources: Path, patients: int) -> None:
    """Write a cohort whose pictures are hard links; no two patients have the same pictures in the same order."""
    pictures = sorted(sources.rglob("*.jpg"))[:SOURCES]
    folder.mkdir(parents=True)
    rows = [HEADER]
    for number in range(patients):
        name = f"P{number:05}"
        (folder / name).mkdir()
        for image in range(IMAGES):
            source = pictures[(number * 7 + image * (1 + number % 5)) % len(pictures)]
            os.link(source, folder / name / f"{image:06}.jpg")
        rows.append(
            f"{name},{'MF'[number % 2]},{1 + number % 12}/{1 + number % 28}/{1930 + number % 60},{4 + number % 90}"
        )
    (folder / TABLE).write_text("\n".join(rows) + "\n")


def start(cohort: Path, out: Path, bundle: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "infer", str(cohort), str(out), "--device", "cpu", "--bundle", str(bundle)]
    return subprocess.Popen([*line, "--reference-date", "2019-07-01"], cwd=ROOT, stderr=subprocess.DEVNULL)


def spend(cohort: Path, out: Path, patients: int, bundle: Path) -> Spent:
    """Run to the end; progress is timed by the growth of the journal."""
    begin = time.monotonic()  # `out` must be new: files of an earlier run would be mistaken for this one's
    process = start(cohort, out, bundle)
    marks: list[float] = []
    for share in (0, patients // 2):
        while _lines(out) <= share + 2 and not _has_ended(process):
            time.sleep(0.02)
        marks.append(time.monotonic())
    decoding = 0.0
    while not _has_ended(process):
        decoding = max(decoding, _peak_of_children(process.pid))
        time.sleep(0.02)
    end = time.monotonic()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise click.ClickException(f"{cohort}: exit code {os.waitstatus_to_exitcode(status)}")
    return Spent(end - begin, usage.ru_maxrss / 1024, decoding, marks[1] - marks[0], end - marks[1])


def _peak_of_children(pid: int) -> float:
    """Total in MiB; shared memory counts for each process."""
    kib = 0
    with contextlib.suppress(OSError):  # processes may end at any time
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{child}/status").read_text())
                kib += int(found[1]) if found else 0
    return kib / 1024


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended. Does not reap it, because its resource usage is read later."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _lines(out: Path) -> int:
    """Estimated number of lines in the journal, from its size: all entries have about the same length."""
    path = out / JOURNAL
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except FileNotFoundError:
        return 0
    return size * head.count(b"\n") // max(1, len(head))


def kill_and_go_on(cohort: Path, out: Path, kills: int, bundle: Path, seed: int) -> list[tuple[int, int]]:
    """Kill a run at a random time after its first patients and let the next run resume to the end; repeat this.

    Returns:
        Number of finished patients in the journal at each kill, and how many of them the next run kept.

    Raises:
        AssertionError: progress was lost, or the tables are not identical to those of an uninterrupted run.
    """
    moments = random.Random(seed)
    whole = out / "whole"
    begin = time.monotonic()
    assert start(cohort, whole, bundle).wait() == 0
    duration = time.monotonic() - begin
    expected = csv_bytes(whole)
    seen: list[tuple[int, int]] = []
    for _ in range(10 * kills):
        if len(seen) == kills:
            break
        shutil.rmtree(out / "cut", ignore_errors=True)
        process = start(cohort, out / "cut", bundle)
        while _finished(out / "cut") < 1 and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.6 * duration))
        process.kill()
        process.wait()
        if (out / "cut" / "run.json").exists():  # the run had already ended, so this kill does not count
            continue
        before = _finished(out / "cut")
        assert start(cohort, out / "cut", bundle).wait() == 0
        record = json.loads((out / "cut" / "run.json").read_text())
        seen.append((before, record["kept_from_earlier_starts"]))
        assert before == record["kept_from_earlier_starts"] > 0, seen[-1]
        assert csv_bytes(out / "cut") == expected, seen[-1]
    assert len(seen) == kills, "runs ended before they could be killed"
    return seen


def _finished(out: Path) -> int:
    stored = read_journal(out / JOURNAL)
    return len(stored.places) if stored else 0


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--patients", default=20_000, show_default=True)
@click.option("--kills", default=50, show_default=True)
@click.option("--bundle", type=click.Path(path_type=Path), default=TINY, help="[default: the tests' tiny one]")
def soak(folder: Path, patients: int, kills: int, bundle: Path) -> None:
    """Measure memory and time for 100, half and all patients, then test kills."""
    shutil.rmtree(folder, ignore_errors=True)
    write_cohort(folder / "sources", make_patients(4, seed=1, images=(16, 16)), seed=1, labels=False)
    click.echo("patients\tseconds\tms per patient: all, first half, second half\tpeak MiB\tpeak MiB of decoding")
    for number in (100, patients // 2, patients):
        cohort = folder / f"cohort-{number}"
        write_linked_cohort(cohort, folder / "sources", number)
        spent = spend(cohort, folder / f"out-{number}", number, bundle)
        halves = [
            1000 * seconds / (number / 2) for seconds in (spent.seconds_of_first_half, spent.seconds_of_second_half)
        ]
        each = f"{1000 * spent.seconds / number:.2f}, {halves[0]:.2f}, {halves[1]:.2f}"
        click.echo(f"{number}\t{spent.seconds:.1f}\t{each}\t{spent.peak_mib:.1f}\t{spent.decoding_mib:.1f}")
        shutil.rmtree(cohort)
    if kills:
        write_linked_cohort(folder / "cohort", folder / "sources", 400)
        seen = kill_and_go_on(folder / "cohort", folder / "kills", kills, bundle, seed=0)
        kept = sorted(before for before, _ in seen)
        click.echo(
            f"{len(seen)} kills after {kept[0]} to {kept[-1]} of 400 patients (median {kept[len(kept) // 2]}): "
            "all kept, tables byte-identical"
        )
    shutil.rmtree(folder)


if __name__ == "__main__":
    soak()
