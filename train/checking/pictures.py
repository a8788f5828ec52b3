"""What is wrong with pictures: unreadable, too small, of another size, too few, without a cell."""

from collections import Counter

import numpy as np

from infer.pictures.measure import CENTRE, has_cell
from train.checking.finding import Finding, correct, counted, fine, look, named
from train.checking.summaries import Summaries
from train.data.labelled import PLAUSIBLE, no_usable_picture

MANY_REJECTED, MANY_WITHOUT_CELL = 0.02, 0.05  # shares of the pictures that somebody should look into


def findings_of_pictures(looked: Summaries) -> list[Finding]:
    """What to say of the pictures themselves."""
    return [*_rejected(looked), *_numbers(looked), *_sizes(looked), *_without_cell(looked)]


def _rejected(looked: Summaries) -> list[Finding]:
    found = []
    empty = [looked.patient_ids[one] for one in np.flatnonzero(looked.counts() == 0)]
    if empty:
        todo = "Copy their pictures again, or set these patients' LABEL to -1."
        found.append(correct("pictures", no_usable_picture([named(empty)]), todo, empty))
    if not looked.rejected:
        return found
    codes = Counter(reason.partition(":")[0] for _, _, reason in looked.rejected)
    listed = ", ".join(f"{number} {code}" for code, number in codes.most_common())
    patients = len({patient for patient, *_ in looked.rejected})
    what = f"{counted(len(looked.rejected), 'picture')} of {counted(patients, 'patient')} cannot be used: {listed}"
    places = [f"{patient}/{name}: {reason}" for patient, name, reason in looked.rejected]
    share = len(looked.rejected) / (len(looked.rejected) + len(looked.names))
    todo = "Copy them again from the analyser; training leaves them out."
    if share > MANY_REJECTED:
        what += f" ({share:.0%} of all)"
    return [*found, look("pictures", what, todo, places)]


def _numbers(looked: Summaries) -> list[Finding]:
    counts = looked.counts()
    if not len(looked.names):
        return []
    what = (
        f"{counted(len(looked.names), 'usable picture')}; a patient has {counts.min()} to {counts.max()}, median "
        f"{np.median(counts):g}"
    )
    found = [fine("pictures", what)]
    single = [looked.patient_ids[one] for one in np.flatnonzero(counts == 1)]
    few = [
        f"{looked.patient_ids[one]}: {counts[one]}"
        for one in np.flatnonzero((counts > 1) & (counts < PLAUSIBLE.minimum_images))
    ]
    if single:
        todo = "Add pictures or set LABEL to -1: one cell tells nothing of a patient."
        found.append(look("pictures", f"{counted(len(single), 'patient')} with a single picture", todo, single))
    if few:
        what = f"{counted(len(few), 'patient')} with fewer than {PLAUSIBLE.minimum_images} pictures"
        todo = "Training takes them; scoring refuses such patients. Add pictures if there are more."
        found.append(look("pictures", what, todo, few))
    return found


def _sizes(looked: Summaries) -> list[Finding]:
    if "width" not in looked.files or not len(looked.files):
        return []
    sizes = list(zip(looked.files["width"].astype(int), looked.files["height"].astype(int), strict=True))
    (usual, number), *others = Counter(sizes).most_common()
    if not others:
        return [fine("sizes", f"All pictures are {usual[0]} x {usual[1]} pixels")]
    odd = Counter(looked.patient_ids[owner] for owner, size in zip(looked.owner, sizes, strict=True) if size != usual)
    listed = ", ".join(f"{times} of {width} x {height}" for (width, height), times in others[:5])
    what = f"{number} pictures are {usual[0]} x {usual[1]} pixels, but {listed}"
    todo = (
        "See that all come from the same camera at the same magnification and are not scaled: only the central 112 x "
        "112 pixels are used, as they are."
    )
    return [look("sizes", what, todo, [f"{name}: {counted(times, 'picture')}" for name, times in odd.items()])]


def _without_cell(looked: Summaries) -> list[Finding]:
    if looked.measures is None or not len(looked.measures):
        return []
    empty = np.array([not has_cell({CENTRE: value}) for value in looked.measures[CENTRE]])
    if not empty.any():
        return []
    what = f"{counted(int(empty.sum()), 'picture')} without a cell in the middle ({empty.mean():.1%})"
    places = [looked.place(int(one)) for one in np.flatnonzero(empty)]
    todo = "Training keeps them, scoring rejects them; pictures must be centred on a lymphocyte."
    kind = look if empty.mean() > MANY_WITHOUT_CELL else fine
    return [kind("pictures", what, todo, places)]
