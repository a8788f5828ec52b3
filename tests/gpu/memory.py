"""Step `memory`: runs on a GPU whose memory another process holds."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from tests.gpu.check import ROOT, TABLES, Check, Ran, StepError

LEFT = (200, 700, 1500, 4000)  # MiB free: too little for a session at first, then for large batches
WITH_AUTO = (200, 1500)
LARGEST_BATCH = 1024
LONGEST_RUN = 40.0  # seconds; one that hangs must not cost the others
ENDINGS = {"cuda": (0, 6), "auto": (0,)}  # the exit codes that are right


def memory(check: Check) -> None:
    """Note how runs end: exit code, message, downgrades and the files left in the output folder.

    Raises:
        StepError: a run ends otherwise than it should, or one that did not finish leaves results.
    """
    if check.device != "cuda":
        check.note("not run", "a CPU has no memory of its own")
        return
    check = replace(check, longest_run=LONGEST_RUN)
    cohort = check.patients()
    problems = []
    for left in LEFT:
        with _held(left) as free:
            for device in ("cuda", "auto") if left in WITH_AUTO else ("cuda",):
                out = check.folder / f"out-{device}-{left}"
                ran = check.run(cohort, out, device, "--batch-size", str(LARGEST_BATCH))
                files = sorted(path.name for path in out.iterdir()) if out.exists() else []
                found = {
                    "free": free,
                    "exit_code": ran.code,
                    "said": ran.said,
                    "seconds": ran.seconds,
                    "files": files,
                    "downgrades": ran.record.get("downgrades"),
                }
                check.note(f"--device {device}, {left} MiB left", found)
                problems += [f"{device}, {left} MiB left: {text}" for text in _problems(ran, device, files)]
    if problems:
        raise StepError("; ".join(problems))


def _problems(ran: Ran, device: str, files: list[str]) -> list[str]:
    results = [name for name in (*TABLES, "run.json") if name in files]
    problems = [] if ran.code in ENDINGS[device] else [f"exit code {ran.code}: {ran.said}"]
    if ran.code == 6 and results:
        problems.append(f"left {', '.join(results)}")
    return problems


@contextlib.contextmanager
def _held(left: int) -> Iterator[str]:
    """While this lasts, another process holds all but so many MiB. Gives what it says of itself."""
    line = [sys.executable, "-m", "tests.gpu.hold", str(left)]
    process = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        first = process.stdout.readline().strip() if process.stdout else ""
        if not first:
            raise StepError("the GPU's memory cannot be held; the reason is in the output")
        yield first
    finally:
        process.communicate()
