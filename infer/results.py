"""Writes predictions.csv, images.csv, run.json and run.log: each appears under its name only when it is complete."""

import contextlib
import csv
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from infer.errors import FINISHED_WITH_FAILURES, OutputError
from infer.manifest import MEMBERS
from infer.scoring import ImageResult, PatientResult

REPORT_MEMBERS, FURTHER_MEMBERS = MEMBERS[:3], MEMBERS[3:]  # those that came later have their columns at the end
PREDICTION_COLUMNS = (
    "patient_id",
    "status",
    "reason",
    "probability_malignant",
    "decision",
    "age_years",
    "images",
    "images_rejected",
    *(f"{member}_probability" for member in REPORT_MEMBERS),
    "moe_image_gate",
    "disagreement",
    "bundle",
    *(f"{member}_probability" for member in FURTHER_MEMBERS),
)
IMAGE_COLUMNS = (
    "patient_id",
    "image",
    "status",
    "reason",
    "baseline_probability",
    "cell_class",
    "cell_class_confidence",
    "imagenet_contribution",
)
PREDICTIONS, IMAGES, RECORD, LOG_FILE = "predictions.csv", "images.csv", "run.json", "run.log"
NAMES = (PREDICTIONS, IMAGES, RECORD, LOG_FILE)
MODE = 0o640  # patients' data


@dataclass
class Tally:
    """Counts of a run, for the exit code and run.json."""

    patients: Counter[str] = field(default_factory=Counter)  # by status
    reasons: Counter[str] = field(default_factory=Counter)  # codes of refused and failed patients
    decisions: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)  # used, rejected
    image_reasons: Counter[str] = field(default_factory=Counter)
    ignored_files: int = 0
    unusual_colours: int = 0

    def add(self, result: PatientResult) -> None:
        """Count one patient and its pictures."""
        self.patients[result.status] += 1
        if result.reason:
            self.reasons[_code(result.reason)] += 1
        if result.scores:
            self.decisions[result.scores.decision] += 1
        self.images["rejected"] += result.rejected
        self.images["used"] += len(result.images) - result.rejected
        self.image_reasons.update(_code(image.reason) for image in result.images if image.reason)
        self.ignored_files += result.ignored_files
        self.unusual_colours += result.unusual_colour

    def exit_code(self, max_refused: float) -> int:
        """0, or 3 if a patient failed, none was scored, or more than this share was refused."""
        total = sum(self.patients.values())
        too_many = self.patients["refused"] > max_refused * total
        bad = self.patients["failed"] or not self.patients["scored"] or too_many
        return FINISHED_WITH_FAILURES if bad else 0

    def as_record(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "patients": {status: self.patients[status] for status in ("scored", "refused", "failed")},
            "patient_reasons": dict(sorted(self.reasons.items())),
            "decisions": {decision: self.decisions[decision] for decision in ("malignant", "reactive", "refer")},
            "images": {status: self.images[status] for status in ("used", "rejected")},
            "image_reasons": dict(sorted(self.image_reasons.items())),
            "ignored_files": self.ignored_files,
            "patients_with_unusual_colour": self.unusual_colours,
        }


class Results:
    """The output folder of one run. Leaving it without `finish` leaves no result file behind."""

    def __init__(self, folder: Path, short_id: str) -> None:
        """Create the folder and take away an earlier run's results, which would not belong to this run.

        Raises:
            OutputError: the folder cannot be made or written.
        """
        self.folder = folder
        self._short_id = short_id
        self._stack = contextlib.ExitStack()
        with _output_errors(folder), self._removing_parts():
            folder.mkdir(parents=True, exist_ok=True)
            self._log = logging.StreamHandler(self._open(LOG_FILE))
            self._predictions = csv.writer(self._open(PREDICTIONS), lineterminator="\n")
            self._images = csv.writer(self._open(IMAGES), lineterminator="\n")
            for name in NAMES:
                (folder / name).unlink(missing_ok=True)
            self._predictions.writerow(PREDICTION_COLUMNS)
            self._images.writerow(IMAGE_COLUMNS)
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger("lympho").addHandler(self._log)

    def __enter__(self) -> "Results":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("lympho").removeHandler(self._log)
        self._remove_parts()

    def write(self, result: PatientResult) -> None:
        """Add a patient's rows.

        Raises:
            OutputError: the disk is full or gone.
        """
        with _output_errors(self.folder):
            self._predictions.writerow(prediction_row(result, self._short_id))
            self._images.writerows(image_row(result, image) for image in result.images)

    def finish(self, record: dict[str, Any]) -> None:
        """Put all files under their names, run.json last: where it stands, the run ended.

        Raises:
            OutputError: the disk is full or gone.
        """
        logging.getLogger("lympho").removeHandler(self._log)
        with _output_errors(self.folder), self._removing_parts(*NAMES):
            self._open(RECORD).write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
            self._stack.close()
            for name in (PREDICTIONS, IMAGES, LOG_FILE, RECORD):
                os.replace(_part(self.folder, name), self.folder / name)

    @contextlib.contextmanager
    def _removing_parts(self, *also: str) -> Iterator[None]:
        """Leave nothing half-written if what is inside fails."""
        try:
            yield
        except BaseException:
            self._remove_parts()
            for name in also:
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink(missing_ok=True)
            raise

    def _remove_parts(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not hide what ended the run
            self._stack.close()
        for name in NAMES:
            with contextlib.suppress(OSError):
                _part(self.folder, name).unlink(missing_ok=True)

    def _open(self, name: str) -> IO[str]:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags, MODE)

        path = _part(self.folder, name)
        # File names need not be UTF-8; one that is not must not cost the others their results.
        file = open(path, "w", encoding="utf-8", errors="backslashreplace", newline="", opener=opener)  # noqa: SIM115
        self._stack.callback(_close_synced, file)
        return file


def prediction_row(result: PatientResult, short_id: str) -> list[str]:
    """A row of predictions.csv; refused and failed patients have no number and no decision."""
    head = [_guarded(result.patient_id), result.status, result.reason]
    scores = result.scores
    if scores is None:
        row = dict.fromkeys(PREDICTION_COLUMNS, "") | {"bundle": short_id}
        return [*head, *list(row.values())[len(head) :]]
    return [
        *head,
        _decimal(scores.probability),
        scores.decision,
        f"{result.age_years:.2f}",
        str(len(result.images)),
        str(result.rejected),
        *(_decimal(scores.members[member]) for member in REPORT_MEMBERS),
        _decimal(scores.gate),
        _decimal(scores.disagreement),
        short_id,
        *(_decimal(scores.members[member]) for member in FURTHER_MEMBERS),
    ]


def image_row(result: PatientResult, image: ImageResult) -> list[str]:
    """A row of images.csv; pictures that did not enter a patient's probability have no number."""
    head = [_guarded(result.patient_id), _guarded(image.image), "rejected" if image.reason else "used", image.reason]
    baseline, confidence, contribution = image.baseline_probability, image.cell_class_confidence, image.contribution
    if result.scores is None or baseline is None or confidence is None or contribution is None:
        return [*head, "", "", "", ""]
    return [*head, _decimal(baseline), str(image.cell_class), _decimal(confidence), _decimal(contribution)]


def _decimal(value: float) -> str:
    return f"{value:.6f}"


def _guarded(cell: str) -> str:
    """A cell that a spreadsheet would take for a formula gets a leading apostrophe."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _code(reason: str) -> str:
    return reason.partition(":")[0]


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.part"


def _close_synced(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


@contextlib.contextmanager
def _output_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: cannot be written ({error.strerror})") from error
