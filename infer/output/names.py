"""The names of the files in OUT, and the hidden names that they have before and after."""

from pathlib import Path

from infer.output.csv import IMAGES, PREDICTIONS
from infer.output.journal import JOURNAL
from infer.output.kept import KEPT
from infer.output.kinds import FOLDERS
from infer.output.watch import DRIFT

RECORD, LOG_FILE, LAST_RUN = "run.json", "run.log", "last_run.json"
NAMES = (RECORD, PREDICTIONS, IMAGES, DRIFT, KEPT, LOG_FILE)  # of a finished run
TABLES_AND_RECORD = (RECORD, PREDICTIONS, IMAGES, DRIFT, KEPT)  # an unfinished run's partial files of these are useless
PARTS = {name: f".{name.lstrip('.')}.part" for name in NAMES}  # temporary names until all are complete
# Everything that a run renames or removes, set aside in this order: run.json must not outlive its tables.
MOVED = (*FOLDERS, *NAMES, JOURNAL, *PARTS.values(), LAST_RUN)


def part_of(folder: Path, name: str) -> Path:
    """The path under which a result file is written."""
    return folder / PARTS[name]


def earlier_of(folder: Path, name: str) -> Path:
    """The path of an earlier run's file while a new one takes its name."""
    return folder / f".{name.lstrip('.')}.earlier"
