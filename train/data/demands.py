"""What a labelled cohort must have before it is worth decoding: each rule returns a sentence with a remedy, or None."""

from collections.abc import Sequence
from pathlib import Path

FEWEST_OF_A_CLASS = 5  # as many as there are folds: each holds out one at least
FEWEST_PICTURES = 2  # that most patients must have

# What a run folder has from its first second on; another folder that is not empty is somebody's.
OF_A_RUN = ("crops", "folds.csv", "options.json", "calls.jsonl")
FEATURES_OF_A_RUN = "features-"


def problem_of_labels(labels: Sequence[str]) -> str | None:
    """Labels that are words.

    Args:
        labels: the table's cells.
    """
    words = sum(any(character.isalpha() for character in label) for label in labels)
    if not words:
        return None
    return f"LABEL is a word in {words} rows: write 1 for malignant, 0 for reactive and -1 for unknown"


def problem_of_classes(malignant: int, reactive: int) -> str | None:
    """A class that is missing, or has fewer patients than there are folds."""
    if not malignant + reactive:
        return "no patient has LABEL 1 or 0: write 1 for malignant and 0 for reactive"
    for number, meaning, label in ((malignant, "malignant", 1), (reactive, "reactive", 0)):
        if not number:
            return (
                f"no patient is {meaning} (LABEL {label}), and nothing can be learnt from one class: add such patients"
            )
    if min(malignant, reactive) >= FEWEST_OF_A_CLASS:
        return None
    number, meaning = min((malignant, "malignant"), (reactive, "reactive"))
    return (
        f"fewer than {FEWEST_OF_A_CLASS} {meaning} patients: {number} of {malignant + reactive}, but each of 5 folds "
        "needs one. Label more patients"
    )


def problem_of_pictures(numbers: Sequence[int]) -> str | None:
    """Patients with hardly a picture.

    Args:
        numbers: (P,) of each patient's pictures.
    """
    few = sum(number < FEWEST_PICTURES for number in numbers)
    if 2 * few <= len(numbers):
        return None
    return (
        f"{few} of {len(numbers)} patients have fewer than {FEWEST_PICTURES} pictures: put all pictures of a patient "
        "into one folder named like the ID"
    )


def problem_of_run(run: Path) -> str | None:
    """A folder that is to become a run folder, but holds something else."""
    names = sorted(path.name for path in run.iterdir() if not path.name.startswith(".")) if run.is_dir() else []
    if not names or any(name in OF_A_RUN or name.startswith(FEATURES_OF_A_RUN) for name in names):
        return None
    return f"{run}: is not empty and no run folder of an earlier training. Choose an empty or a new folder"
