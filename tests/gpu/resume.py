"""Step `resume`: a run on the GPU that is stopped by SIGTERM and started again."""

import shutil
import time
from pathlib import Path

from infer.output.journal import JOURNAL, read_journal
from tests.gpu.check import Check, StepError, finished

PATIENTS = 60
REHEARSED = 6  # patients on a CPU, which only rehearses the check
TRIES = 5  # a run may end before it can be stopped


def resume(check: Check) -> None:
    """Note how many patients were finished at the stop and kept afterwards.

    Raises:
        StepError: patients were lost, or the tables are not the same bytes as an uninterrupted run's.
    """
    cohort = check.many(PATIENTS if check.device == "cuda" else REHEARSED)
    whole, out = check.needed(cohort, check.folder / "out-whole", check.device), check.folder / "out-stopped"
    check.note("uninterrupted", {"seconds": whole.seconds})
    for _ in range(TRIES):
        shutil.rmtree(out, ignore_errors=True)
        process = check.start(cohort, out, check.device)
        while process.poll() is None and not _has_finished_one(out):
            time.sleep(0.005)
        process.terminate()
        stopped = finished(process, out, time.perf_counter(), check.longest_run)
        if stopped.code:
            break
    else:
        raise StepError("every run ended before it could be stopped")
    stored = read_journal(out / JOURNAL)
    before = len(stored.places) if stored else 0
    check.note("stopped", {"exit_code": stopped.code, "said": stopped.said, "finished_patients": before})
    begin = time.perf_counter()
    resumed = finished(check.start(cohort, out, check.device), out, begin, check.longest_run)
    record = resumed.record
    kept, same = record.get("kept_from_earlier_starts"), bool(record) and resumed.tables == whole.tables
    check.note(
        "resumed",
        {
            "exit_code": resumed.code,
            "said": resumed.said,
            "seconds": resumed.seconds,
            "kept_patients": kept,
            "started_over": record.get("started_over"),
            "same_bytes": same,
        },
    )
    if not (stopped.code == 143 and resumed.code == 0 and before == kept and before > 0 and same):
        raise StepError(
            f"stopped with {stopped.code} after {before} patients, then {resumed.code} with {kept} kept, "
            f"{'the same bytes' if same else 'other bytes'}: {resumed.said}"
        )


def _has_finished_one(out: Path) -> bool:
    stored = read_journal(out / JOURNAL)
    return stored is not None and len(stored.places) > 0
