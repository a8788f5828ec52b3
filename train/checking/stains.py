"""Whether the patients' colours fall into groups, and whether the groups go with the label.

Two groups are more than one broad one only if there is a valley between them. The patients are split in two by k-means
and put on the line between the two centres. If their density had one peak only, the middle third between the centres
would hold at least as many as the sparser of the two stretches of that length around the centres, but for chance: a
binomial test. It takes about eight patients in the smaller group.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, fisher_exact
from sklearn.cluster import KMeans

from train.checking.finding import Finding, fine, look
from train.checking.summaries import Summaries
from train.core.arrays import Booleans, Floats, Labels
from train.core.threads import on_one_thread

COLOURS = {
    "the bare slide": ("slide_red", "slide_green", "slide_blue"),
    "the pictures": ("red", "green", "blue"),
}
LEVEL = 0.01  # of the valley, for each of COLOURS
LEAST_APART = 3.0  # levels of 255 between the centres: less is no other stain
LEAST_PATIENTS = 20
TOGETHER = 0.05  # p of Fisher's test


@dataclass(frozen=True)
class Groups:
    """Two groups of patients by colour."""

    second: Booleans  # (P,) in the smaller group
    centres: Floats  # (2, 3) mean colours of the larger and the smaller
    p: float  # of so deep a valley by chance


def findings_of_stains(looked: Summaries) -> list[Finding]:
    """What to say of the colours."""
    some = looked.counts() > 0
    if looked.measures is None or some.sum() < LEAST_PATIENTS:
        return []
    found = []
    names = np.array(looked.patient_ids)[some]
    for of, columns in COLOURS.items():
        colours = np.stack([looked.per_patient(looked.measures[name].to_numpy()) for name in columns], axis=1)[some]
        groups = two_groups(colours)
        if groups is not None:
            found.append(_said(of, groups, looked.labels[some], names))
    return found or [fine("stain", "The patients' colours form one group")]


@on_one_thread
def two_groups(colours: Floats) -> Groups | None:
    """The two groups that colours (P, 3), in levels from 0 to 255, fall into; None if they are one."""
    model = KMeans(2, n_init=10, random_state=0).fit(colours)
    first, second = model.cluster_centers_
    apart = float(np.linalg.norm(second - first))
    if apart < LEAST_APART:
        return None
    along = (colours - first) @ (second - first) / apart**2  # (P,) 0 at the first centre, 1 at the second
    near = [int((np.abs(along - place) <= 1 / 6).sum()) for place in (0.0, 0.5, 1.0)]
    fewest = min(near[0], near[2])
    if not fewest:
        return None
    p = float(binomtest(near[1], near[1] + fewest, 0.5, alternative="less").pvalue)
    if p >= LEVEL:
        return None
    chosen = model.labels_ == 1
    smaller = chosen if chosen.sum() * 2 <= len(chosen) else ~chosen
    return Groups(smaller, np.stack([colours[~smaller].mean(axis=0), colours[smaller].mean(axis=0)]), p)


def _said(of: str, groups: Groups, labels: Labels, names: np.ndarray) -> Finding:
    table = [[int(((labels == label) & (groups.second == group)).sum()) for label in (1, 0)] for group in (False, True)]
    p = float(fisher_exact(table).pvalue)
    sizes = [sum(row) for row in table]
    shares = [row[0] / sum(row) for row in table]
    colours = [" ".join(f"{level:.0f}" for level in colour) for colour in groups.centres]
    what = (
        f"The colours of {of} fall into two groups of {sizes[0]} and {sizes[1]} patients (mean red, green, blue "
        f"{colours[0]} and {colours[1]}); {shares[0]:.0%} and {shares[1]:.0%} of them are malignant"
    )
    concerned = [f"smaller group: {', '.join(names[groups.second])}"]
    if p < TOGETHER:
        todo = (
            "Colour tells the label here (Fisher's test, p = "
            f"{p:.2g}): a model learns the stain instead of the cells. Collect both classes with both stains."
        )
        return look("stain", what, todo, concerned)
    todo = "They do not go with the label. Know that there are two stains or cameras, and look at both apart."
    return look("stain", what, todo, concerned)
