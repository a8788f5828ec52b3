"""Labels that are given away by what should know nothing of them: the ID, the order of rows, files.

The models never see these. But if they tell the label, the two classes were collected in two ways, and whatever else
differs between the ways (stain, camera, year) is a shortcut. Each is judged by the AUC with which it ranks the label.
"""

import re
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from infer.pictures.measure import JPEG_QUALITY
from train.checking.finding import Finding, fine, look
from train.checking.summaries import Summaries
from train.core.arrays import Floats, Labels
from train.core.performance import Predictions, auc, estimate, resamples

LEVEL = 0.05  # of any false alarm among all that are looked at: divided by their number (Bonferroni)
LEAST = 0.1  # distance of the AUC from .5 that is worth a word, however many patients there are
LEAST_LEVELS = 1.0  # of 255, between the classes' mean slides: less is no other lamp, but rounding and what lies around
RESAMPLES = 1000
FEWEST = 5  # patients of a class
ID, ROWS, PICTURES, TIMES, BYTES = (
    "the ID",
    "the order of rows",
    "the number of pictures",
    "the files' dates",
    "the files' sizes",
)
NAMES, SIDES, COMPRESSION, SLIDE = (
    "the file names",
    "the pictures' sizes",
    "the JPEG quality",
    "the bare slide's brightness",
)
# Of these one may expect that they know something: more cells are photographed where more are found, and a file's size
# depends on what it shows.
EXPECTED = {
    PICTURES: "It may be real (more cells are found where more are), but no model should need it.",
    BYTES: "A file's size depends on what it shows, so it may be real; see that all were compressed alike.",
}
WHAT_TO_DO = {
    ID: "Find out why: were the classes collected apart? Then stain or camera may differ, and a model learns that.",
    ROWS: "As for the ID. If the table was only sorted by diagnosis, nothing is wrong.",
    TIMES: "Find out whether the classes were exported or photographed at different times.",
    NAMES: "See that the names were not given by diagnosis, in two exports.",
    SIDES: "Take both classes' pictures with the same camera and settings.",
    COMPRESSION: "Export both classes' pictures with the same settings, from the originals.",
    SLIDE: "The classes seem to come from other lamps or cameras: a model learns that. Collect both alike.",
}  # fmt: skip


@dataclass(frozen=True)
class GivenAway:
    """How well a variable ranks the label."""

    name: str
    area: float  # AUC
    low: float  # 95% interval
    high: float
    p: float  # Mann-Whitney, two-sided


def findings_of_giveaways(looked: Summaries) -> list[Finding]:
    """What gives the label away, and what was looked at."""
    labels = looked.labels
    some = looked.counts() > 0
    if np.bincount(labels[some], minlength=2).min() < FEWEST:
        return []
    columns = {name: values[some] for name, values in variables(looked).items()}
    columns = {name: values for name, values in columns.items() if len(np.unique(values)) > 1}
    told = given_away(columns, labels[some])
    found = []
    for one in told:
        what = f"The label can be told from {one.name}: AUC {one.area:.2f} [{one.low:.2f}, {one.high:.2f}]"
        found.append(
            fine("shortcuts", what, EXPECTED[one.name])
            if one.name in EXPECTED
            else look("shortcuts", what, WHAT_TO_DO[one.name])
        )
    others = [name for name in columns if name not in {one.name for one in told}]
    if others:
        found.append(fine("shortcuts", f"The label cannot be told from {', '.join(others)} ({len(columns)} looked at)"))
    return found


def given_away(columns: dict[str, Floats], labels: Labels) -> list[GivenAway]:
    """Those of some variables (P,) that tell the label, in fewer than 5% of clean cohorts any of them.

    Args:
        labels: (P,) both occur.
    """
    found = []
    for name, values in columns.items():
        test = mannwhitneyu(values[labels == 1], values[labels == 0])
        area = float(test.statistic) / float((labels == 1).sum() * (labels == 0).sum())
        if test.pvalue < LEVEL / len(columns) and abs(area - 0.5) >= LEAST:
            predictions = Predictions(labels, values, np.zeros(len(labels), np.bool_))
            of = estimate(auc, [predictions], resamples(labels, seed=0, number=RESAMPLES))
            found.append(GivenAway(name, area, of.low, of.high, float(test.pvalue)))
    return found


def variables(looked: Summaries) -> dict[str, Floats]:
    """What should know nothing of the label, (P,) each; those that are known for all patients."""
    first = [
        looked.names[at] if len(looked.names) > at else ""
        for at in np.searchsorted(looked.owner, range(len(looked.labels)))
    ]
    found = {
        ID: ranks(looked.patient_ids),
        ROWS: looked.lines.astype(np.float64),
        PICTURES: looked.counts().astype(np.float64),
        NAMES: ranks(first),
    }
    files = looked.files
    if "modified" in files:
        found[TIMES] = np.floor(looked.per_patient(files["modified"].to_numpy()) / 60)  # minutes
        found[BYTES] = looked.per_patient(files["bytes"].to_numpy(np.float64))
        found[SIDES] = looked.per_patient((files["width"] * files["height"]).to_numpy(np.float64))
        if not files[JPEG_QUALITY].isna().any():
            found[COMPRESSION] = looked.per_patient(files[JPEG_QUALITY].to_numpy())
    if looked.measures is not None and len(looked.measures):
        slide = looked.measures[["slide_red", "slide_green", "slide_blue"]].mean(axis=1)
        of_patients = looked.per_patient(slide.to_numpy())
        apart = [np.nanmean(of_patients[looked.labels == label]) for label in (0, 1)]
        if abs(apart[1] - apart[0]) >= LEAST_LEVELS:
            found[SLIDE] = of_patients
    return found


def ranks(names: list[str]) -> Floats:
    """The place of each name when sorted as people do, P9 before P10; equal names have equal places."""
    keys = [
        [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)] for name in names
    ]
    order = {str(key): place for place, key in enumerate(sorted(keys))}
    return np.array([order[str(key)] for key in keys], np.float64)
