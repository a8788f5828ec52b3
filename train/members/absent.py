"""Members that could not be trained: the ensemble does without them, and everybody is told.

RUN/FOLDER/absent.txt says in one sentence why a member is not there; RUN/FOLDER/notes.json has sentences on what took
whose place in one that is.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from train.core.files import write_text
from train.core.fitting import TrainingError
from train.members.training import MemberJob, MemberTraining

ABSENT, NOTES = "absent.txt", "notes.json"
LOG = logging.getLogger("lympho")


def train_or_leave_out(member: MemberTraining, job: MemberJob) -> None:
    """Train a member; where its training collapses, write down that it is left out, and why."""
    path = job.run / member.folder / ABSENT
    try:
        member.train(job)
    except TrainingError as error:
        LOG.warning("%s; the ensemble does without the member %s", error, member.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"The member {member.name} is left out, because its training failed: {error}.\n")
    else:
        path.unlink(missing_ok=True)


def is_absent(run: Path, member: MemberTraining) -> bool:
    """Whether a run does without this member."""
    return (run / member.folder / ABSENT).exists()


def write_notes(folder: Path, notes: Sequence[str]) -> None:
    """Write down what took whose place in a member's training, or remove what an earlier training wrote."""
    path = folder / NOTES
    if notes:
        write_text(path, json.dumps(list(notes), indent=1))
    else:
        path.unlink(missing_ok=True)


def read_notes(folder: Path) -> list[str]:
    """The sentences that `write_notes` left in a folder."""
    path = folder / NOTES
    return list(json.loads(path.read_text())) if path.exists() else []


def notes_of(run: Path, members: Sequence[MemberTraining]) -> list[str]:
    """All sentences on members that are left out, or in which something took another's place."""
    found = []
    for member in members:
        absent = run / member.folder / ABSENT
        found += [absent.read_text().strip()] if absent.exists() else read_notes(run / member.folder)
    return found
