"""Checks a cohort before anything is trained on it, and gathers everything that is found."""

from dataclasses import dataclass
from pathlib import Path

import torch

from infer.bundle.load import Bundle
from infer.errors import CohortError, UsageError
from infer.machine.times import DAY, in_words
from train.checking.duplicates import findings_of_duplicates
from train.checking.finding import Finding, Severity, correct, counted, fine
from train.checking.giveaways import findings_of_giveaways
from train.checking.likeness import findings_of_likeness
from train.checking.pictures import findings_of_pictures
from train.checking.stains import findings_of_stains
from train.checking.summaries import Summaries, summarise_crops, summarise_files
from train.checking.table import Contents, TableOptions, read_contents
from train.checking.timing import StageTime, estimate_times, total
from train.data.bags import Bags


@dataclass(frozen=True)
class Checked:
    """What was found, the worst first, and the estimated times."""

    findings: tuple[Finding, ...]
    times: tuple[StageTime, ...] = ()

    def of(self, severity: Severity) -> list[Finding]:
        """The findings that are as serious as that."""
        return [one for one in self.findings if one.severity is severity]

    @property
    def in_short(self) -> str:
        """One sentence."""
        numbers = [len(self.of(severity)) for severity in Severity]
        return f"{numbers[0]} to correct before training, {numbers[1]} to look at, {numbers[2]} for information"


def check(asked: TableOptions, bundle: Bundle | None = None, device: torch.device | None = None) -> Checked:
    """Look at table, folders and pictures; nothing is written.

    Args:
        asked: whose.
        bundle: to compare the pictures with; None: with none.
        device: to estimate times on; None: they are not.
    """
    known = read_contents(asked)
    found, times = list(known.findings), []
    if known.cohort and known.jobs:
        try:
            looked = summarise_files(known.cohort, known)
        except CohortError as error:
            found.append(correct("pictures", str(error), "Check again when the disk or the share can be read."))
        else:
            found += [*_of_both(looked), *findings_of_stains(looked)]
            if bundle and len(looked.names):
                found += findings_of_likeness(looked, bundle.manifest, asked.picture_size)
            if device and not any(one.severity is Severity.CORRECT for one in found):
                times = estimate_times(known.cohort, known, looked, device)
                found.append(_of_times(times))
    return Checked(tuple(sorted(found, key=lambda one: list(Severity).index(one.severity))), tuple(times))


def demand_nothing_to_correct(asked: TableOptions) -> Contents:
    """What `train all` asks for before it decodes anything.

    Raises:
        UsageError: something must be corrected; then the pictures are looked at too, so that all of it is named.
    """
    known = read_contents(asked)
    if any(one.severity is Severity.CORRECT for one in known.findings):
        refuse(check(asked))
    return known


def check_crops(known: Contents, bags: Bags, run: Path) -> Checked:
    """What `train all` looks at once the pictures are decoded: the crops, not the files.

    Raises:
        UsageError: something must be corrected.
    """
    looked = summarise_crops(bags, run, known)
    found = [*known.findings, *_of_both(looked)]
    checked = Checked(tuple(sorted(found, key=lambda one: list(Severity).index(one.severity))))
    refuse(checked)
    return checked


def refuse(checked: Checked) -> None:
    """Stop if anything must be corrected.

    Raises:
        UsageError: something must; all of it is in the message.
    """
    wrong = checked.of(Severity.CORRECT)
    if not wrong:
        return
    lines = [f"{counted(len(wrong), 'thing')} to correct before training:"]
    for one in wrong:
        lines.append(f"- {one.what}. {one.todo}".rstrip())
        lines += [f"    {text}" for text in one.concerned]
    raise UsageError("\n".join(lines))


def _of_both(looked: Summaries) -> list[Finding]:
    return [*findings_of_pictures(looked), *findings_of_duplicates(looked), *findings_of_giveaways(looked)]


def _of_times(times: list[StageTime]) -> Finding:
    sums = total(times)
    listed = [
        f"{one.stage}: {', '.join(f'{name} {in_words(seconds)}' for name, seconds in one.seconds.items())}"
        for one in times
    ]
    what = "Estimated time of `train all` on this machine as busy as it is now: " + ", ".join(
        f"recipe {name} {in_words(seconds)}" for name, seconds in sums.items()
    )
    slow = "A GPU is needed for the recipe full, or days; small is made for two cores." if sums["full"] > DAY else ""
    return fine("time", what, slow, listed)
