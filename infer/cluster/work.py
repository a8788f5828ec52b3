"""What goes between the driver and its actors: JSON text alone, so that nothing of ours is unpickled on either side."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from infer.cohort.patient import Patient
from infer.scoring.result import PatientResult
from infer.scoring.unusual import Ood


@dataclass(frozen=True)
class Work:
    """What every actor must know before its first patient. Paths must lead to the same files on all nodes."""

    patients: Path
    some_folders: tuple[str, ...]  # patients who have a folder there
    table: Path
    table_sha256: str
    bundle: Path
    bundle_id: str
    code: str  # version and digest of the driver's program
    libraries: str  # versions of what decodes and computes, as JSON
    device: str  # as given on the command line, as are the next ones
    operating_point: str
    prevalence: float | None
    batch_size: int | None
    workers: int
    settle: float
    ood: Ood
    scale: float  # by which pictures are rescaled before they are cropped

    def text(self) -> str:
        """As text, for `work_of`."""
        return _text({name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()})


@dataclass(frozen=True)
class Hello:
    """What an actor says of itself once it has passed the self-test."""

    machine: str
    numerics: str  # digest of how its networks round
    provider: str
    note: str  # why this device was chosen
    precision: str
    processors: int
    downgrades: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What an actor says of a patient: its result, or why the actor is of no more use."""

    result: PatientResult | None = None
    downgrades: tuple[str, ...] = ()  # since its last answer
    broken: str = ""  # for people


@dataclass(frozen=True)
class Refusal:
    """Why an actor cannot take part."""

    why: str  # for people; ends without a full stop
    exit_code: int = 1  # that a run would end with for this reason


def some_of(patients: Path, folders: Iterable[str]) -> tuple[str, ...]:
    """Those of some patients' folders that are there."""
    # Not Path.is_dir, which raises where a name is too long for a folder.
    return tuple(one for one in folders if os.path.isdir(patients / one))  # noqa: PTH112


def work_of(text: str) -> Work:
    """The work that a driver described."""
    found: Work = msgspec.convert(_value(text), Work, dec_hook=_path)
    return found


def patient_text(patient: Patient) -> str:
    """A row of the table, for `patient_of`."""
    return _text(asdict(patient))


def patient_of(text: str) -> Patient:
    """The row of the table."""
    return msgspec.convert(_value(text), Patient)


def answer_text(answer: Answer | Hello | Refusal) -> str:
    """What an actor says, for `answer_of` and `hello_of`."""
    return _text(msgspec.to_builtins(answer))


def answer_of(text: str) -> Answer:
    """What an actor says of a patient."""
    try:
        return msgspec.json.decode(text, type=Answer)  # six times as fast
    except msgspec.DecodeError:  # it knows no file names that are not UTF-8
        return msgspec.convert(_value(text), Answer)


def hello_of(text: str) -> Hello | Refusal:
    """What an actor says of itself."""
    value = _value(text)
    return msgspec.convert(value, Refusal) if "why" in value else msgspec.convert(value, Hello)


def _text(value: Any) -> str:
    return json.dumps(value)  # ASCII: JSON's escapes carry file names that are not UTF-8, too


def _value(text: str) -> Any:
    return json.loads(text)


def _path(kind: type, value: Any) -> Any:
    return kind(value)
