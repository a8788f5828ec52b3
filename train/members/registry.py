"""The list of all members, in the order of infer.members.registry."""

from pathlib import Path

from train.members import baseline, experts, imagenet
from train.members.absent import is_absent
from train.members.cells import member as cells
from train.members.recipes import Recipe
from train.members.training import MemberTraining, digest

MEMBERS: list[MemberTraining] = [baseline.TRAINING, cells.TRAINING, experts.TRAINING, imagenet.TRAINING]


def digests(recipe: Recipe, seed: int) -> dict[str, str]:
    """SHA-256 of every member's numbers: whether results are of the members as they are now."""
    return {f"{member.name}_sha256": digest(member.numbers(recipe, seed)) for member in MEMBERS}


def names() -> tuple[str, ...]:
    """The names of all members."""
    return tuple(member.name for member in MEMBERS)


def present(run: Path) -> list[MemberTraining]:
    """The members of a run folder: all but those that could not be trained there."""
    return [member for member in MEMBERS if not is_absent(run, member)]
