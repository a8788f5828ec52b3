"""What a validation says, in sentences that claim no more than its intervals."""

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from infer.bundle.manifest import AGREEING
from train.core.texts import interval
from train.evaluation.validation.figures import BLIND, CLINICAL, ENSEMBLE, Figures
from train.evaluation.validation.scored import Scored

EXTERNAL = "External validation"
TRAINING = "No validation: the bundle was made on these patients"
OVERLAP = "No external validation: the bundle was made on some of these patients"
UNKNOWN = "Validation on patients given"


@dataclass(frozen=True)
class Said:
    """Headline and sentences."""

    kind: str
    whose: str
    sentences: tuple[str, ...]


def say(scored: Scored, figures: Figures) -> Said:
    """The sentences of a validation."""
    kind, whose = _whose(scored)
    return Said(
        kind,
        whose,
        (
            _ranking(figures),
            *_blind(figures),
            _calibration(figures),
            *_held_up(scored),
            *_disagree(scored),
            *_lost(scored),
            _size(figures),
        ),
    )


def _whose(scored: Scored) -> tuple[str, str]:
    patients = len(scored.labels)
    if scored.same_table:
        return (
            TRAINING,
            f"The table is the one that the bundle was {scored.made_on}. All figures flatter, by how much nobody "
            "knows.",
        )
    if scored.known is None:
        return (
            UNKNOWN,
            f"The bundle does not tell which pictures it was {scored.made_on}: make sure that none of these are.",
        )
    known = int(scored.known.sum())
    if known == patients:
        return (
            TRAINING,
            f"All of these patients have pictures that the bundle was {scored.made_on}. All figures flatter.",
        )
    if known:
        return (
            OVERLAP,
            f"{known} of {patients} patients have pictures that the bundle was {scored.made_on}. Leave them out: set "
            "their LABEL to -1. With them all figures flatter.",
        )
    return EXTERNAL, f"None of the {patients} patients has a picture that the bundle was {scored.made_on}."


def _blind(figures: Figures) -> list[str]:
    """What the bundle loses by other patients' pictures, if that was measured."""
    blind = _found(figures.performance, model=BLIND, group="all", figure="auc")
    lost = _found(figures.differences, against=BLIND, group="all", figure="auc")
    if blind is None or lost is None:
        return []
    sees = "So it sees something in these pictures" if lost["low"] > 0 else "That it sees anything here is not shown"
    return [f"By other patients' pictures its AUC is {interval(blind)}; it loses {interval(lost)}. {sees}."]


def _ranking(figures: Figures) -> str:
    mine = _found(figures.performance, model=ENSEMBLE, group="all", figure="auc")
    said = f"AUC {interval(mine)}."
    others = _found(figures.performance, model=CLINICAL, group="all", figure="auc")
    if others is None:
        return f"{said} There are too few patients of one class to compare it with sex, age and count alone."
    gain = _found(figures.differences, against=CLINICAL, group="all", figure="auc")
    verdict = "Whether pictures help here is not shown"
    if gain is not None and gain["low"] > 0:
        verdict = "So it ranks better than they do"
    if gain is not None and gain["high"] < 0:
        verdict = "So it ranks worse than they do: do not use it here"
    return (
        f"{said} Sex, age and count alone, fitted on these patients: {interval(others)}; difference "
        f"{interval(gain, signed=True)}. {verdict}."
    )


def _calibration(figures: Figures) -> str:
    intercept = _found(figures.performance, model=ENSEMBLE, group="all", figure="calibration_intercept")
    slope = _found(figures.performance, model=ENSEMBLE, group="all", figure="calibration_slope")
    if intercept is None or slope is None:
        return "Calibration cannot be told: the probabilities separate the classes, or there are too few patients."
    wrong = []
    if intercept["low"] > 0 or intercept["high"] < 0:
        wrong.append("too low on average" if intercept["low"] > 0 else "too high on average")
    if slope["low"] > 1 or slope["high"] < 1:
        wrong.append("too extreme" if slope["high"] < 1 else "not extreme enough")
    verdict = f"The probabilities are {' and '.join(wrong)} here" if wrong else "No miscalibration is shown"
    return (
        f"{verdict}: calibration in the large {interval(intercept, signed=True)} (0 is ideal), slope {interval(slope)} "
        "(1 is ideal)."
    )


def _held_up(scored: Scored) -> list[str]:
    held = int(scored.held_up.sum())
    if not held:
        return []
    return [
        f"{held} of {len(scored.labels)} patients are unlike the training patients, and would be left undecided "
        "(--ood refer). In the tables of operating points they are referred; the other figures are of their numbers."
    ]


def _disagree(scored: Scored) -> list[str]:
    number = int(scored.disagree.sum())
    if not number:
        return []
    return [
        f"On {number} of {len(scored.labels)} patients the members disagree more than they did on {AGREEING:.0%} of "
        "the training patients. They are left undecided: in the tables of operating points they are referred."
    ]


def _lost(scored: Scored) -> list[str]:
    said = []
    if scored.not_scored:
        codes = Counter(one.code for one in scored.not_scored)
        malignant = sum(one.label for one in scored.not_scored)
        listed = ", ".join(f"{code} {number}" for code, number in codes.most_common())
        said.append(
            f"{len(scored.not_scored)} labelled patients have no probability, {malignant} of them malignant "
            f"({listed}): no figure counts them."
        )
    if scored.without_label:
        said.append(f"{scored.without_label} patients have no label and are not judged.")
    return said


def _size(figures: Figures) -> str:
    names = {"auc": "the AUC", "sensitivity": "sensitivity", "specificity": "specificity"}
    patients = int(figures.performance["patients"].iloc[0])  # the first group is everybody
    needed = [f"{names[name]} {number}" for name, number in figures.needed.items() if number > patients]
    if not needed:
        return "More patients would hardly narrow the intervals of AUC, sensitivity and specificity: 5 points or less."
    return (
        f"Patients needed for intervals of 5 points to either side, as many malignant among them: {', '.join(needed)}."
    )


def _found(table: pd.DataFrame, **wanted: str) -> dict[str, float] | None:
    """The only row with these cells."""
    for row in table.to_dict("records"):
        if all(row[name] == value for name, value in wanted.items()):
            return {name: float(row[name]) for name in ("value", "low", "high")}
    return None
