"""The counts of a run, which give the exit code and part of run.json."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from infer.errors import FINISHED_WITH_FAILURES
from infer.pictures.duplicates import Duplicates
from infer.scoring.result import PatientResult


@dataclass
class Summary:
    """Counts of a run, for the exit code and run.json."""

    patients: Counter[str] = field(default_factory=Counter)  # by status
    reasons: Counter[str] = field(default_factory=Counter)  # codes of refused and failed patients
    decisions: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)  # used, rejected
    image_reasons: Counter[str] = field(default_factory=Counter)
    ignored_files: int = 0
    disagreeing: int = 0  # patients whose members disagree above the bundle's bound
    unlike: int = 0  # patients unlike the training patients
    unlike_in_pictures: list[tuple[int, str]] = field(default_factory=list)  # line, patient: those by their pictures
    unusual: Counter[str] = field(default_factory=Counter)  # what is unusual about the pictures -> patients
    unusual_sizes: Counter[str] = field(default_factory=Counter)  # "width x height" in pixels -> pictures
    of_unusual_size: list[tuple[int, str]] = field(default_factory=list)
    pictures_below: list[tuple[int, str, list[str]]] = field(default_factory=list)  # line, patient, subfolders
    duplicates: Duplicates = field(default_factory=Duplicates)
    not_scored: list[tuple[int, str, str, str]] = field(default_factory=list)  # line, patient, status, code

    def add(self, result: PatientResult, line: int) -> None:
        """Count one patient and its pictures.

        Args:
            line: the patient's line in the table. Patients kept from an earlier start are added first, but the lists in
                run.json must be in the table's order.
        """
        self.patients[result.status] += 1
        if result.code:
            self.reasons[result.code] += 1
            self.not_scored.append((line, result.patient_id, result.status, result.code))
        if result.scores:
            self.decisions[result.scores.decision] += 1
            self.disagreeing += result.scores.disagree
        self.images["rejected"] += result.rejected
        self.images["used"] += result.used
        self.image_reasons.update(result.image_reasons)
        self.ignored_files += result.ignored_files
        self.unlike += bool(result.unusual)
        if result.unusual_pictures:
            self.unlike_in_pictures.append((line, result.patient_id))
            self.unusual.update(result.unusual_pictures)
        if result.unusual_sizes:
            self.unusual_sizes.update(result.unusual_sizes)
            self.of_unusual_size.append((line, result.patient_id))
        if result.pictures_below:
            self.pictures_below.append((line, result.patient_id, list(result.pictures_below)))
        self.duplicates.add(result.patient_id, result.contents)

    def exit_code(self, max_refused: float) -> int:
        """0, or 3 if a patient failed, no patient was scored, or more than this share was refused."""
        return FINISHED_WITH_FAILURES if self.failures(max_refused) else 0

    def failures(self, max_refused: float) -> list[str]:
        """Why the exit code is 3; empty if it is not."""
        total, failed, refused = sum(self.patients.values()), self.patients["failed"], self.patients["refused"]
        found = [f"{failed} {'patient has' if failed == 1 else 'patients have'} failed"] if failed else []
        if not self.patients["scored"]:
            found.append("no patient was scored")
        if refused > max_refused * total:
            found.append(f"{refused} of {total} patients were refused, more than {max_refused:.0%} (--max-refused)")
        return found

    def unusual_measures(self) -> dict[str, int]:
        """What is unusual about the pictures, and of how many patients, most first."""
        return dict(sorted(self.unusual.items(), key=lambda one: (-one[1], one[0])))

    def as_counts(self) -> dict[str, dict[str, int]]:
        """Patients by status and by decision, and pictures by status: each there, also where it is 0."""
        return {
            "patients": {status: self.patients[status] for status in ("scored", "refused", "failed")},
            "decisions": {decision: self.decisions[decision] for decision in ("malignant", "reactive", "refer")},
            "images": {status: self.images[status] for status in ("used", "rejected")},
        }

    def as_record(self) -> dict[str, Any]:
        """The counts for run.json."""
        counts = self.as_counts()
        return {
            "patients": counts["patients"],
            "patient_reasons": dict(sorted(self.reasons.items())),
            "decisions": counts["decisions"],
            "patients_disagreeing": self.disagreeing,
            "images": counts["images"],
            "image_reasons": dict(sorted(self.image_reasons.items())),
            "ignored_files": self.ignored_files,
            "patients_unlike_training": self.unlike,
            "unlike_training": [patient_id for _, patient_id in sorted(self.unlike_in_pictures)],
            "unusual_measures": self.unusual_measures(),
            "patients_with_unusual_picture_size": len(self.of_unusual_size),
            "unusual_picture_size": [patient_id for _, patient_id in sorted(self.of_unusual_size)],
            "unusual_picture_sizes": dict(sorted(self.unusual_sizes.items())),
            "patients_with_pictures_below": len(self.pictures_below),
            "pictures_below": {patient_id: folders for _, patient_id, folders in sorted(self.pictures_below)},
            "same_pictures": [
                {"patients": list(patients), "pictures": pictures}
                for patients, pictures in self.duplicates.found().items()
            ],
            "not_scored": [
                {"patient_id": patient_id, "status": status, "code": code}
                for _, patient_id, status, code in sorted(self.not_scored)
            ],
        }
