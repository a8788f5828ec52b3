"""Finished shards: what each says of itself, and whether together they are one cohort, every patient once."""

import contextlib
import heapq
import json
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from infer.cohort.shard import Shard, parse_shard
from infer.errors import FINISHED_WITH_FAILURES, UsageError
from infer.output.folder import unfinished_size
from infer.output.journal import Header, run_of
from infer.output.kept import KEPT, read_header, read_rows
from infer.output.last_run import last_code
from infer.output.lock import check_free
from infer.output.names import LAST_RUN, RECORD
from infer.scoring.result import PatientResult

SAME_OPTIONS = ("csv_dialect", "max_refused")  # beside those in the header, on which results depend
# What the merge takes over from run.json.
NEEDED: dict[str, Any] = {
    "run": str, "machine": str, "device": dict, "patients": dict, "starts": list, "ended": str, "downgrades": list,
    "cohort": dict, "program": dict, "libraries": dict, "bundle": dict, "reference_date_asked_for": (str, type(None)),
}  # fmt: skip
OTHER_FILES = 64  # that a process has open
MAY_DIFFER = {"shard", "numerics"}  # of the header: another processor may round differently


@dataclass(frozen=True)
class Finished:
    """The output folder of a finished shard."""

    folder: Path
    shard: Shard
    record: Mapping[str, Any]  # run.json
    header: Header

    @property
    def cohort(self) -> Mapping[str, Any]:
        """What run.json says of the table."""
        return self.record["cohort"]  # type: ignore[no-any-return]

    @property
    def option(self) -> Mapping[str, Any]:
        """The options that the shard was scored with."""
        return self.record["options"]  # type: ignore[no-any-return]


def read_shards(folders: Sequence[Path]) -> list[Finished]:
    """Read and check the shards, and sort them by number.

    Raises:
        HeldError: one is being scored.
        UsageError: one is not a finished shard, its last run did not finish, one is missing or twice there, or two do
            not belong together.
    """
    _allow_open_files(len(folders))
    shards = sorted((_read(folder) for folder in folders), key=lambda one: one.shard.index)
    first = shards[0]
    for one in shards:
        _check_same(first, one)
    for one, following in pairwise(shards):
        if one.shard == following.shard:
            raise UsageError(f"{following.folder}: is shard {one.shard}, and so is {one.folder}. Leave one out")
    there = {one.shard.index for one in shards}
    if missing := [str(Shard(index, first.shard.of)) for index in range(first.shard.of) if index not in there]:
        others = f" and {len(missing) - 1} more are" if missing[1:] else " is"
        raise UsageError(f"shard {missing[0]}{others} missing. Score what is missing, and merge all of them")
    found = sum(one.cohort["patients"] for one in shards)
    if found != first.cohort["patients_in_table"]:
        raise UsageError(
            f"{first.cohort['table']}: has {first.cohort['patients_in_table']} patients, the shards have {found}. "
            "Score them again"
        )
    return shards


def is_shard(folder: Path) -> bool:
    """Whether a folder holds a shard's results."""
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))["options"]["shard"] is not None
    except (OSError, ValueError, KeyError, TypeError):
        return False


def cohorts_of(folders: Sequence[Path]) -> set[Path]:
    """The patients' folders that shards name, as far as they can be read."""
    found = set()
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.add(Path(json.loads((folder / RECORD).read_text(encoding="utf-8"))["options"]["patients"]))
    return found


def rows_of(shards: Sequence[Finished]) -> Iterator[tuple[int, PatientResult]]:
    """All patients of all shards in the table's order, each with the line in the table; read as they are needed.

    Raises, during iteration:
        UsageError: a patient is in a shard that it does not belong to, or a line is there twice.
        OutputError: a shard's results are damaged.
    """
    before = 0
    for line, result in heapq.merge(*map(_rows, shards), key=lambda row: row[0]):
        if line <= before:
            raise UsageError(f"{result.patient_id}: two shards have this patient. Score the shards again")
        before = line
        yield line, result


def _rows(shard: Finished) -> Iterator[tuple[int, PatientResult]]:
    path = shard.folder / KEPT
    if run_of(path) != shard.record["run"]:
        raise UsageError(f"{shard.folder}: {KEPT} and {RECORD} are of two runs. Let the shard finish, and merge again")
    for line, result in read_rows(path, shard.cohort["patients"]):
        if not shard.shard.holds(result.patient_id):
            raise UsageError(
                f"{shard.folder}: has patient {result.patient_id}, who is not of shard {shard.shard}. Score it again"
            )
        yield line, result


def _read(folder: Path) -> Finished:
    path = folder / RECORD
    check_free(folder)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        text = record["options"]["shard"]
        if text is None:
            raise UsageError(f"{folder}: is a whole run, not a shard. Merge what was scored with --shard")
        shard = parse_shard(text)
        for name, kind in NEEDED.items():
            if not isinstance(record[name], kind):
                raise TypeError(name)
        if not all(isinstance(record["cohort"][name], int) for name in ("patients", "patients_in_table")):
            raise TypeError("cohort")
        if not set(SAME_OPTIONS) <= set(record["options"]):
            raise KeyError("options")
        _check_ending(folder)
        return Finished(folder, shard, record, read_header(folder / KEPT))
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: holds no finished run ({RECORD} is missing). Let this shard finish") from error
    except OSError as error:
        raise UsageError(f"{error.filename or path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: is not the record of a shard of this version. Score the shard again") from error


def _check_ending(folder: Path) -> None:
    """The results of a shard must be of its last run, which a later one that did not finish would not have replaced.

    Raises:
        UsageError: they are not.
    """
    again = "Start it again, and merge once it has finished"
    if unfinished_size(folder):
        raise UsageError(f"{folder}: its last run has not finished; its results are of an earlier one. {again}")
    code = last_code(folder)
    if code not in (None, 0, FINISHED_WITH_FAILURES):
        raise UsageError(
            f"{folder}: its last run ended with {code} ({LAST_RUN}); its results are of an earlier one. {again}"
        )


def _allow_open_files(shards: int) -> None:
    """All shards are read side by side, each from an open file.

    Raises:
        UsageError: the system does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = shards + OTHER_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise UsageError(
            f"{shards} shards: more than the {hard} files that may be open here, less {OTHER_FILES}. Raise the limit "
            "(ulimit -n), or score fewer and larger shards"
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_same(first: Finished, other: Finished) -> None:
    """Two shards must be of one cohort, scored in the same way.

    Raises:
        UsageError: they are not; the message names what differs.
    """

    def facts(one: Finished) -> dict[str, Any]:
        identity = {name: value for name, value in asdict(one.header.identity).items() if name not in MAY_DIFFER}
        return {
            "number of shards": one.shard.of,
            "table (table_sha256)": one.cohort["table_sha256"],
            "number of patients in the table": one.cohort["patients_in_table"],
            **identity,
            "date of ages": one.header.date,
            **{name: one.option[name] for name in SAME_OPTIONS},
        }

    ours, theirs = facts(first), facts(other)
    if different := [name for name in ours if ours[name] != theirs[name]]:
        raise UsageError(
            f"{other.folder}: does not belong to {first.folder}: another {', '.join(different)}. Score one of them anew"
        )
