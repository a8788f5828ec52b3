"""`make gpu-check`: whether a GPU computes what the CPU computes, how it stops and fails, and how fast it is.

    .build/cuda/bin/python -m tests.gpu_check FOLDER [--patients PATIENTS] [--bundle DIR] [--reference-date 2019-07-01]

Needs only what ships. FOLDER/gpu_check.json is written anew after each step; a step that crashes, or takes longer than
it may, keeps what it had noted. Ends with 0 if every step is ok, 1 if one is not, and with 5 or 6, as a run does, if
the bundle or the GPU cannot be used. `--rehearse` runs the same on a CPU, to try the check itself.
"""

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from infer.bundle.load import REFERENCE
from infer.errors import LymphoError
from tests.gpu.check import ROOT, Check, said
from tests.gpu.cohort import cohort
from tests.gpu.facts import facts
from tests.gpu.memory import memory
from tests.gpu.resume import resume
from tests.gpu.self_test import self_test
from tests.gpu.throughput import throughput
from tests.synthetic import REFERENCE_DATE

REPORT, SAID, NOTES = "gpu_check.json", "output.txt", "notes.json"
FACTS = "facts"
STEPS: dict[str, tuple[Callable[[Check], None], float]] = {  # what it does, and its part of the time
    FACTS: (facts, 60),
    "self-test": (self_test, 60),
    "cohort": (cohort, 130),
    "resume": (resume, 80),
    "memory": (memory, 110),
    "throughput": (throughput, 150),
}
WHOLE = sum(part for _, part in STEPS.values())
WIDTH = 100  # characters of a reason in the table


@dataclass(frozen=True)
class Step:
    """How a step went."""

    ok: bool
    reason: str  # why it is not
    exit_code: int
    seconds: float
    found: dict[str, Any]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--patients", type=click.Path(path_type=Path, exists=True, file_okay=False), help="[default: drawn ones]")
@click.option("--bundle", type=click.Path(path_type=Path), default=REFERENCE, help="[default: the one that ships]")
@click.option("--reference-date", type=click.DateTime(["%Y-%m-%d"]), default=REFERENCE_DATE.isoformat())
@click.option("--step", "steps", multiple=True, type=click.Choice([*STEPS]), help="Only these, after the facts.")
@click.option(
    "--minutes", type=click.FloatRange(0.1), default=9.75, show_default=True, help="All steps may take these."
)
@click.option("--rehearse", is_flag=True, help="On the CPU.")
@click.option("--inside", type=click.Choice([*STEPS]), hidden=True, help="Run a step in this process.")
def main(
    folder: Path,
    patients: Path | None,
    bundle: Path,
    reference_date: dt.datetime,
    steps: tuple[str, ...],
    minutes: float,
    rehearse: bool,
    inside: str | None,
) -> None:
    """Check the GPU, step by step. FOLDER must be new, empty or an earlier check's, which is overwritten."""
    folder, bundle = folder.resolve(), bundle.resolve()
    patients = patients.resolve() if patients else None
    if inside:
        device = "cpu" if rehearse else "cuda"
        run_inside(inside, Check(folder, folder / NOTES, patients, bundle, reference_date.date(), device))
        return
    if folder.exists() and any(folder.iterdir()) and not (folder / REPORT).exists():
        raise click.UsageError(f"{folder}: is no earlier check's, and would be overwritten. Choose another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = ["--bundle", str(bundle), "--reference-date", f"{reference_date:%Y-%m-%d}"]
    options += ["--patients", str(patients)] if patients else []
    options += ["--rehearse"] if rehearse else []
    names = [name for name in STEPS if name == FACTS or name in steps or not steps]
    sys.exit(check_all(folder, options, names, 60 * minutes))


def run_inside(name: str, check: Check) -> None:
    """Run a step in this process, and end with its exit code."""
    try:
        STEPS[name][0](check)
    except LymphoError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


def check_all(folder: Path, options: list[str], names: list[str], seconds: float) -> int:
    """Run steps, each in a process of its own, and write and print how they went. Returns the exit code."""
    done: dict[str, Step] = {}
    code: int | None = None  # none yet
    click.echo(f"{'step':12}{'':10}{'seconds':>8}")
    for name in names:
        done[name] = step = run_step(name, folder, options, seconds * STEPS[name][1] / WHOLE)
        if name == FACTS and step.exit_code:
            code = step.exit_code
        elif name == names[-1]:
            code = int(not all(one.ok for one in done.values()))
        steps = {one: asdict(went) for one, went in done.items()}
        not_run = [one for one in names if one not in done]
        report = {"exit_code": code, "steps": steps, "not_run": not_run}
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        click.echo(f"{name:12}{'ok' if step.ok else 'FAILED':10}{step.seconds:8.1f}  {step.reason[:WIDTH]}".rstrip())
        if code is not None:
            break
    for name in not_run:
        click.echo(f"{name:12}not run")
    return code or 0


def run_step(name: str, folder: Path, options: list[str], limit: float) -> Step:
    """Run a step in a process of its own, and end it and what it started if it takes longer than `limit` seconds."""
    (folder / NOTES).unlink(missing_ok=True)
    line = [sys.executable, "-m", "tests.gpu_check", str(folder), "--inside", name, *options]
    begin = time.monotonic()
    with (folder / SAID).open("a+", encoding="utf-8") as output:
        start = output.seek(0, os.SEEK_END)
        process = subprocess.Popen(line, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
        try:
            code = process.wait(limit)
            reason = ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code, reason = process.wait(), f"took longer than {limit:.0f} seconds"
        output.seek(start)
        reason = reason or (said(output.read()) or f"exit code {code}" if code else "")
    seconds = time.monotonic() - begin
    path = folder / NOTES
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return Step(not code, reason, code, seconds, found)


if __name__ == "__main__":
    main()
