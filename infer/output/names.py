"""The names of the files in OUT, and the hidden names that they have before and after."""

from pathlib import Path

from infer.output.csv import IMAGES, PREDICTIONS
from infer.output.journal import JOURNAL
from infer.output.kept import KEPT
from infer.output.kinds import FOLDERS
from infer.output.lock import LOCK
from infer.output.watch import DRIFT

RECORD, LOG_FILE, LAST_RUN = "run.json", "run.log", "last_run.json"
NAMES = (RECORD, PREDICTIONS, IMAGES, DRIFT, KEPT, LOG_FILE)  # of a finished run
TABLES_AND_RECORD = (RECORD, PREDICTIONS, IMAGES, DRIFT, KEPT)  # an unfinished run's partial files of these are useless
PARTS = {name: f".{name.lstrip('.')}.part" for name in NAMES}  # temporary names until all are complete
# What a run replaces is set aside in this order, to see that it can be: run.json must not outlive its tables.
MOVED = (*FOLDERS, *NAMES, JOURNAL, *PARTS.values())
OWN = (*MOVED, LAST_RUN)  # everything that a run writes, renames or removes


def part_of(folder: Path, name: str) -> Path:
    """The path under which a result file is written."""
    return folder / PARTS[name]


def earlier_of(folder: Path, name: str) -> Path:
    """The path of an earlier run's file while a new one takes its name."""
    return folder / f".{name.lstrip('.')}.earlier"


def no_file_in(out: Path, *cohorts: Path) -> tuple[tuple[str, Path], ...]:
    """The folders where no file that is asked for may lie, each with what it is and why."""
    own = ((f"{out / name}, which holds nothing but a run's own files", out / name) for name in FOLDERS)
    return (*(("the cohort, which is never written to", cohort) for cohort in cohorts), *own)


def no_file_at(out: Path) -> tuple[Path, ...]:
    """The files in OUT that a run writes, renames or removes, also while it changes places with the one before."""
    return tuple(path for name in (*OWN, LOCK) for path in (out / name, earlier_of(out, name)))
