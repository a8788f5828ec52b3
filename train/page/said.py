"""What the page says in sentences: verdict, what flatters, warnings, what to do next."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.core.texts import interval, number
from train.members.training import OUT_OF_FOLD
from train.page.finished_run import FinishedRun, title_of
from train.page.judged import Judged

WIDE = 0.1  # an interval of the AUC wider than that tells little
FEW = 30  # patients of a class
CHANCE = 0.5


@dataclass(frozen=True)
class Step:
    """Something to do next."""

    title: str
    why: str
    command: str


def verdict(found: FinishedRun, judged: Judged) -> tuple[str, ...]:
    """How well the ensemble ranks, whether pictures help, and how far to believe that."""
    ranks = (
        f"Out of fold, the ensemble ranks a malignant patient above a reactive one in {judged.ensemble.value:.0%} of "
        f"pairs: AUC {interval(vars(judged.ensemble))} on {len(found.bags)} patients."
    )
    if judged.gain.low > 0:
        shown = "So pictures are shown to help here"
    elif judged.gain.high < 0:
        shown = "So it ranks worse than they do: do not use it"
    else:
        shown = "So it is not shown that pictures help here"
    compared = (
        f"Sex, age and count alone, on the same folds, reach {interval(vars(judged.clinical[judged.clinical_name]))} "
        f"({judged.clinical_name}); difference {interval(vars(judged.gain), signed=True)}. {shown}."
    )
    if found.nested is None:
        quoted = "Out-of-fold figures can flatter. The one to quote is that of the nested evaluation: what to do next."
    else:
        quoted = (
            "Out-of-fold figures can flatter. The one to quote is that of the nested evaluation in this run folder: "
            f"AUC {interval(found.nested)}."
        )
    return ranks, compared, quoted


def flatters(found: FinishedRun) -> tuple[str, ...]:
    """What is honest about these figures, and what is not."""
    evaluated = "is the first step below" if found.nested is None else "is in nested/nested.md"
    return (
        "No network judged a patient whom it was trained on, and none stopped at an epoch picked on held-out patients.",
        "The calibration, weights and thresholds that judge a patient were fitted on the other folds. But they were "
        "fitted on what networks said there that had been trained with this patient: so they have seen the label "
        "indirectly, and the figures can flatter. By how much, only the nested evaluation tells.",
        "They flatter if you choose by them: the best member of a table, another seed, another recipe.",
        "The intervals are for other patients of the same kind and these very networks. They do not cover that another "
        "training gives other networks, nor another laboratory, stain or camera.",
        f"An honest figure needs the nested evaluation, which {evaluated}, and patients of another place or time.",
    )


def warnings(found: FinishedRun, judged: Judged) -> tuple[str, ...]:
    """Whatever somebody should know before they rely on this run."""
    return (*_of_data(found, judged), *_of_models(found, judged), *_of_points(found), *_of_files(found))


def _of_data(found: FinishedRun, judged: Judged) -> list[str]:
    said = []
    classes = np.bincount(found.bags.labels, minlength=2)
    if classes.min() < FEW:
        said.append(f"Few patients: {classes[1]} malignant, {classes[0]} reactive. All figures are uncertain.")
    if judged.ensemble.high - judged.ensemble.low > WIDE:
        said.append(
            f"The AUC is only known to lie between {number(judged.ensemble.low)} and {number(judged.ensemble.high)}."
        )
    if found.rejected:
        said.append(f"Pictures that were rejected and not used: {found.rejected}. crops/rejected.csv says why.")
    return said


def _of_models(found: FinishedRun, judged: Judged) -> list[str]:
    said = list(found.notes)
    if judged.gain.low <= 0:
        said.append("The ensemble is not shown to rank better than sex, age and count alone.")
    for name, weight in found.ensemble.weights.items():
        if weight == 0:
            said.append(f"The {title_of(name)} has weight 0: the ensemble would say the same without it.")
    for member in found.members:
        figures = found.metrics.get(member.name, {})
        if figures.get("auc_low", 1.0) <= CHANCE:
            said.append(f"The {member.title} is not shown to rank better than chance.")
    missing = [title_of(name) for name in found.ensemble.weights if name not in {one.name for one in found.members}]
    said += [f"The {title} has no {OUT_OF_FOLD} in this run folder: it is not on this page." for title in missing]
    best = max(found.members, key=lambda one: found.metrics[one.name]["auc"], default=None)
    if best and found.metrics[best.name]["auc"] > found.metrics["ensemble"]["auc"]:
        said.append(
            f"The {best.title} alone has a higher AUC than the ensemble. It was not chosen by that, and to choose it "
            "now would flatter."
        )
    return said


def _of_points(found: FinishedRun) -> list[str]:
    points = found.ensemble.operating_points
    said = [
        f"Operating point {name}: both thresholds are equal, so it refers nobody by probability."
        for name, point in points.items()
        if point.refer_low == point.refer_high
    ]
    alike: dict[tuple[float, float], list[str]] = {}
    for name, point in points.items():
        alike.setdefault((point.refer_low, point.refer_high), []).append(name)
    said += [
        f"Operating points {', '.join(names[:-1])} and {names[-1]} are the same."
        for names in alike.values()
        if len(names) > 1
    ]
    return said


def _of_files(found: FinishedRun) -> list[str]:
    if not found.changed:
        return []
    return [
        f"The ensemble was fitted on other files than those here now ({', '.join(found.changed)}): run "
        "`python -m train ensemble` again."
    ]


def next_steps(found: FinishedRun) -> tuple[Step, ...]:
    """Commands, with the options of this run; stand-ins in capitals where nobody can know."""
    given = found.options or ("PATIENTS", str(found.run), "OPTIONS")
    bundle = found.run / "bundle"
    nested = ("python", "-m", "train", "evaluate", *given, "--protocol", "nested")
    return (
        Step(
            "Evaluate, nested",
            "Everything is trained and fitted again inside folds: the figure to quote. It also judges patients by "
            "other patients' pictures, which shows whether pictures matter. It trains 20 times what this run trained "
            "6 times.",
            _lines(nested),
        ),
        Step(
            "Export",
            "Packs the trained models into a bundle that scores patients.",
            _lines(("python", "-m", "export", str(found.run), str(bundle))),
        ),
        Step(
            "Validate on other patients",
            "Patients that were not trained on, with a known diagnosis, best of another year or laboratory.",
            _lines(("python", "-m", "train", "validate", str(bundle), "OTHER_PATIENTS", "OUT", *_table_options(found))),
        ),
    )


def _lines(words: Sequence[str]) -> str:
    """A command for a shell, each option on a line of its own."""
    text = ""
    for word in words:
        text += f" \\\n    {word}" if word.startswith("--") else f" {shlex.quote(word)}"
    return text.strip()


def _table_options(found: FinishedRun) -> list[str]:
    """How this run's table was read; other patients' ages are taken at another day."""
    facts = found.bags.facts
    names = {"date_format": "--date-format", "sample_date_format": "--sample-date-format", "sex_codes": "--sex-codes"}
    options = [word for key, name in names.items() if facts.get(key) for word in (name, facts[key])]
    return options if facts.get("reference_date") == "SAMPLE_DATE" else [*options, "--reference-date", "DAY"]
