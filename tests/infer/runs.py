"""Helpers: small cohorts, runs and their results, small bundles.

Without pytest: `make soak` needs some of them in the environment that ships, which does not have it.
"""

import contextlib
import csv
import datetime as dt
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from infer.bundle.load import CARD, CHECKSUMS, checksums
from infer.bundle.manifest import MANIFEST
from infer.engine.networks import Seen
from infer.members.member import Member
from infer.options import Options
from infer.output.names import LAST_RUN
from infer.output.results import Results
from infer.run import run
from infer.scoring.result import PatientResult
from tests.synthetic import REFERENCE_DATE

TINY = Path(__file__).parent / "tiny"  # a bundle of a few kilobytes, made by tests/tiny_bundle.py
TABLE = "clinical_annotation.csv"
RESULT_FILES = [".results", "drift.json", "images.csv", "predictions.csv", "run.json", "run.log"]  # sorted
LEFT = [".journal", ".run.log.part"]  # files in the output folder after a run that did not finish
MANY_PATIENTS = 250  # enough for a process to be caught while it works
OF_EVERYBODY = {"patient_id", "status", "reason", "bundle", "run_ended"}  # columns also of who is not scored
CSV_FILES = ("predictions.csv", "images.csv")


class Cut(BaseException):
    """Simulates a process that is killed."""


@dataclass(frozen=True)
class Outcome:
    """Exit code and output folder of a run."""

    code: int
    out: Path

    @property
    def predictions(self) -> dict[str, dict[str, str]]:
        """Rows by patient, in the file's order."""
        return {row["patient_id"]: row for row in rows(self.out / "predictions.csv")}

    @property
    def images(self) -> list[dict[str, str]]:
        return rows(self.out / "images.csv")

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
        return record

    @property
    def csv_bytes(self) -> dict[str, bytes]:
        return csv_bytes(self.out)

    def images_of(self, patient_id: str) -> dict[str, tuple[str, str]]:
        """Status and reason code of each of a patient's pictures."""
        of_patient = [row for row in self.images if row["patient_id"] == patient_id]
        return {row["image"]: (row["status"], row["reason"].partition(":")[0]) for row in of_patient}


def csv_bytes(out: Path) -> dict[str, bytes]:
    """The two tables by name, without the day on which the run ended: tests run at midnight, too."""
    ended = Outcome(0, out).record["ended"].partition("T")[0].encode()
    return {name: re.sub(rb"(?<=[,;])" + ended, b"", (out / name).read_bytes()) for name in CSV_FILES}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def score(patients: Path, out: Path, **options: Any) -> Outcome:
    """Run in this process, on the CPU, at the synthetic cohort's date."""
    options = {"device": "cpu", "reference_date": REFERENCE_DATE, "workers": 2, **options}
    return Outcome(run(Options(patients, out, **options)), out)


def tiny_manifest() -> dict[str, Any]:
    """The tiny bundle's manifest."""
    manifest: dict[str, Any] = json.loads((TINY / MANIFEST).read_bytes())
    return manifest


def write_bundle(folder: Path, manifest: dict[str, Any]) -> Path:
    """A bundle with this manifest and the tiny bundle's graphs that it names."""
    files = {name: (TINY / name).read_bytes() for name in (CARD, *manifest["graphs"])}
    files[MANIFEST] = json.dumps(manifest).encode()
    folder.mkdir()
    for name, data in {**files, CHECKSUMS: checksums(files)}.items():
        (folder / name).write_bytes(data)
    return folder


def sums_of(members: Iterable[Member[Any]], *batches: Seen) -> dict[str, Any]:
    """A patient's sums, by member, over all pictures of the batches."""
    members = tuple(members)
    sums = {member.name: member.begin() for member in members}
    for seen in batches:
        for member in members:
            for row in range(len(next(iter(seen[member.name].values())))):
                member.add(sums[member.name], seen[member.name], row)
    return sums


def verdict(row: dict[str, str]) -> tuple[str, str]:
    """Status and reason code of a row of predictions.csv."""
    return row["status"], row["reason"].partition(":")[0]


def link_cohort(source: Path, folder: Path) -> Path:
    """A copy whose pictures are hard links: replace them, never write into them. The table is a real copy."""
    for path in sorted(source.rglob("*")):
        target = folder / path.relative_to(source)
        if path.is_dir():
            target.mkdir(parents=True)
        elif path.name == TABLE:
            target.write_bytes(path.read_bytes())
        else:
            os.link(path, target)
    return folder


def cell(cohort: Path, patient_id: str, column: str) -> str:
    (value,) = [row[column] for row in rows(cohort / TABLE) if row["ID"] == patient_id]
    return value


def set_count(cohort: Path, patient_id: str, count: str) -> None:
    """Change a patient's count; LYMPH_COUNT is the last column."""
    lines = (cohort / TABLE).read_text(encoding="utf-8").splitlines()
    changed = [",".join([*line.split(",")[:-1], count]) if line.split(",")[1] == patient_id else line for line in lines]
    assert changed != lines
    (cohort / TABLE).write_text("\n".join(changed) + "\n", encoding="utf-8")


def keep_patients(cohort: Path, *patient_ids: str) -> Path:
    """Keep only these patients in the table; a patient's result does not depend on the others."""
    header, *lines = (cohort / TABLE).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.split(",")[1] in patient_ids]
    assert len(kept) == len(patient_ids)
    (cohort / TABLE).write_text("".join([header, *kept]), encoding="utf-8")
    return cohort


def replace_picture(path: Path, data: bytes) -> None:
    """Replace a picture without writing through a hard link."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def names(folder: Path) -> list[str]:
    """The files there, without last_run.json, which every run leaves: test_last_run.py looks at it."""
    return sorted(path.name for path in folder.iterdir() if path.name != LAST_RUN)


def cut(cohort: Path, out: Path, after: int = 2, **options: Any) -> None:
    """A run with the tiny bundle that is killed after some finished patients."""
    writes, count = Results.write, 0

    def write(self: Results, line: int, result: PatientResult) -> None:
        nonlocal count
        writes(self, line, result)
        count += 1
        if count == after:
            raise Cut

    with patch.object(Results, "write", write), contextlib.suppress(Cut):
        score(cohort, out, **({"bundle": TINY} | options))
    assert set(names(out)) - set(RESULT_FILES) == set(LEFT)  # so it was killed


def score_on_a_fixed_day(cohort: Path, out: Path) -> Outcome:
    """A run with the tiny bundle, as the tests that start processes run it."""
    return score(cohort, out, bundle=TINY, reference_date=dt.date(2019, 7, 1))
