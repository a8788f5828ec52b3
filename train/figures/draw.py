"""Draws every figure for which the run folder has data, and reports what is missing for the others."""

from pathlib import Path

from infer.errors import UsageError
from train.data.bags import load_crops
from train.figures.cells import draw_contact_sheet, draw_segmentation
from train.figures.classifiers import draw_classifiers
from train.figures.cohort import draw_cohort
from train.figures.curves import draw_curves
from train.figures.table import write_table_2


def draw_all(run: Path, seed: int) -> list[str]:
    """Write table 2 and figures 2 to 10 to RUN/figures, and return the file names in that folder.

    Raises:
        UsageError: some results are missing; the message lists all missing steps, and the other figures are drawn.
    """
    bags = load_crops(run)
    folder = run / "figures"
    folder.mkdir(exist_ok=True)
    missing = []
    for draw in (
        lambda: draw_cohort(run, folder),
        lambda: draw_segmentation(bags, folder, seed),
        lambda: draw_contact_sheet(bags, run, folder, seed),
        lambda: draw_classifiers(run, folder / "figure-06-classifiers.png"),
        lambda: draw_curves(run, folder),
        lambda: write_table_2(run, folder),
    ):
        try:
            draw()
        except UsageError as error:
            missing.append(str(error))
    if missing:
        raise UsageError("some figures could not be drawn:\n  " + "\n  ".join(missing))
    return sorted(path.name for path in folder.iterdir())
