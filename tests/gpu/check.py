"""What the steps of the check share: where things are, what they note, drawn cohorts, and runs of the program."""

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from infer.bundle.load import Bundle, load_bundle
from infer.engine.networks import smallest_graph
from infer.engine.sessions import CPU, Device, choose_device
from tests.float32 import in_float32
from tests.infer.runs import csv_bytes
from tests.synthetic import make_patients, write_cohort

ROOT = Path(__file__).parents[2]
TABLE = "clinical_annotation.csv"
TABLES = ("predictions.csv", "images.csv")
DRAWN, PICTURES = 24, (60, 100)  # patients if no cohort is given, pictures each
SOURCES, PICTURES_EACH = 4, 200  # the patients that larger cohorts are made of by hard links, pictures each
HEADER = "ID,GENDER,DOB,LYMPH_COUNT"


class StepError(click.ClickException):
    """A step found something wrong. What it measured stays noted."""


@dataclass(frozen=True)
class Ran:
    """A run of the program as its user starts it."""

    code: int
    said: str  # its error, or the last line that it logged
    seconds: float
    out: Path

    @property
    def record(self) -> dict[str, Any]:
        """run.json; empty if there is none."""
        path = self.out / "run.json"
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return record

    @property
    def tables(self) -> list[bytes]:
        return list(csv_bytes(self.out).values())


@dataclass(frozen=True)
class Check:
    """One step's surroundings."""

    folder: Path
    notes: Path  # the file of what the step noted
    cohort: Path | None  # None: drawn patients
    bundle: Path
    date: dt.date  # at which ages are taken
    device: str  # cuda; cpu only rehearses the check
    longest_run: float = 600.0  # seconds; a run that takes longer is killed
    noted: dict[str, Any] = field(default_factory=dict)

    def note(self, name: str, value: object) -> None:
        """Keep a value at once: a step that is stopped or crashes loses nothing that it noted."""
        self.noted[name] = value
        self.notes.write_text(json.dumps(self.noted, indent=1), encoding="utf-8")

    def load(self) -> Bundle:
        return load_bundle(self.bundle)

    def chosen(self, bundle: Bundle) -> Device:
        return choose_device(self.device, smallest_graph(bundle))

    def on(self, device: str, bundle: Bundle) -> Device:
        return self.chosen(bundle) if device == self.device else Device(CPU, f"{device} requested")

    def float32(self) -> Path:
        """The bundle in float32 alone, written once."""
        folder = self.folder / "float32"
        if not folder.exists():
            in_float32(self.load(), folder)
        return folder

    def patients(self) -> Path:
        """The cohort that was given, or drawn patients."""
        if self.cohort is None:
            return drawn(self.folder / "patients", DRAWN, PICTURES)
        return self.cohort

    def many(self, patients: int) -> Path:
        """So many patients of PICTURES_EACH pictures: hard links to those of a few drawn ones."""
        sources = drawn(self.folder / "sources", SOURCES, (PICTURES_EACH, PICTURES_EACH))
        folder = self.folder / f"many-{patients}"
        shutil.rmtree(folder, ignore_errors=True)
        of_sources = [sorted(path.iterdir()) for path in sorted(sources.iterdir()) if path.is_dir()]
        rows = [HEADER]
        for number in range(patients):
            own = folder / f"P{number:04}"
            own.mkdir(parents=True)
            for picture in of_sources[number % SOURCES]:
                os.link(picture, own / picture.name)
            rows.append(f"{own.name},{'MF'[number % 2]},{1 + number % 12}/{1 + number % 28}/1950,{4 + number % 90}")
        (folder / TABLE).write_text("\n".join(rows) + "\n", encoding="utf-8")
        return folder

    def start(self, cohort: Path, out: Path, device: str, *options: str, bundle: Path | None = None) -> Any:
        """Start the program; `finished` waits for it."""
        line = [sys.executable, "-m", "infer", str(cohort), str(out), "--device", device, *options]
        line += ["--bundle", str(bundle or self.bundle), "--reference-date", self.date.isoformat()]
        return subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True, encoding="utf-8")

    def run(self, cohort: Path, out: Path, device: str, *options: str, bundle: Path | None = None) -> Ran:
        """Run the program to its end, in a folder without an earlier run's files."""
        shutil.rmtree(out, ignore_errors=True)
        begin = time.perf_counter()
        return finished(self.start(cohort, out, device, *options, bundle=bundle), out, begin, self.longest_run)

    def needed(self, cohort: Path, out: Path, device: str, *options: str, bundle: Path | None = None) -> Ran:
        """The same where only a finished run is of use."""
        ran = self.run(cohort, out, device, *options, bundle=bundle)
        if ran.code:
            raise StepError(f"{out.name}: exit code {ran.code}: {ran.said}")
        return ran


def finished(process: "subprocess.Popen[str]", out: Path, begin: float, limit: float) -> Ran:
    """Wait for a run; one that takes too long is killed, and its exit code is then -9."""
    try:
        text = process.communicate(timeout=limit)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        text = process.communicate()[1] + f"\nError: killed after {limit:.0f} seconds"
    return Ran(process.returncode, said(text), time.perf_counter() - begin, out)


def said(text: str) -> str:
    """The error in a program's output, else its last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"Error: ", line)]
    return (errors or lines or [""])[-1].removeprefix("Error: ")


def drawn(folder: Path, patients: int, pictures: tuple[int, int]) -> Path:
    """Drawn patients, written once."""
    if not (folder / TABLE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        write_cohort(folder, make_patients(patients, seed=1, images=pictures), seed=1, labels=False)
    return folder
