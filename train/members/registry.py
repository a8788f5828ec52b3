"""The list of all members, in the order of infer.members.registry."""

from train.members import baseline, imagenet, mixture, naive_bayes
from train.members.training import MemberTraining

MEMBERS: list[MemberTraining] = [baseline.TRAINING, naive_bayes.TRAINING, mixture.TRAINING, imagenet.TRAINING]


def names() -> tuple[str, ...]:
    """The names of all members."""
    return tuple(member.name for member in MEMBERS)
