"""Pictures of cells: segmentation (report, figure 4) and samples of each unsupervised class (figure 5)."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw

from infer.errors import UsageError
from train.core.arrays import Pixels
from train.core.files import write_table, written_whole
from train.data.bags import Bags
from train.data.segmentation import before_and_after
from train.members.cells import member as cells

SAMPLES = 10  # pictures per class
SEGMENTED = 6  # pictures shown before and after segmentation
GAP = 4  # px, white space between pictures
MARGIN = 40  # px, for the name of a row


def draw_segmentation(bags: Bags, folder: Path, seed: int) -> None:
    """Write figure-04: some pictures before and after segmentation, drawn at random, not hand-picked.

    Raises:
        UsageError: the run's pictures are already segmented.
    """
    if bags.facts.get("segmented") == "yes":
        raise UsageError("figure 4 needs pictures before segmentation: draw it from a run without --segment")
    chosen = np.random.default_rng(seed).choice(len(bags.crops), min(SEGMENTED, len(bags.crops)), replace=False)
    pairs = [before_and_after(bags.crops[index].cpu().numpy()) for index in sorted(chosen)]
    _save(tile([pairs[start : start + 2] for start in range(0, len(pairs), 2)]), folder / "figure-04-segmentation.png")
    _list(bags, np.sort(chosen), folder / "figure-04-segmentation.csv")


def draw_contact_sheet(bags: Bags, run: Path, folder: Path, seed: int) -> None:
    """Write figure-05, the member's cell classes: one row per class, in order, with its number.

    Pictures are drawn at random, not hand-picked.

    Raises:
        UsageError: the member has not been trained.
    """
    path = run / cells.FOLDER / "classes.csv"
    if not path.exists():
        raise UsageError(f"{run}: has no cell classes. Run `python -m train cells` first")
    classes = pd.read_csv(path)["cell_class"].to_numpy(np.int64)
    columns = samples(classes, seed)
    sheet = tile([[bags.crops[index].cpu().numpy() for index in column] for column in columns])
    names = [str(classes[column[0]]) for column in columns]
    _save(np.concatenate([_margin(names, bags.crops.shape[1]), sheet], axis=1), folder / "figure-05-classes.png")
    _list(bags, np.concatenate(columns), folder / "figure-05-classes.csv", classes)


def samples(classes: npt.NDArray[np.int64], seed: int, number: int = SAMPLES) -> list[npt.NDArray[np.int64]]:
    """For each non-empty class, in order, the indices of up to `number` pictures."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(classes == index) for index in np.unique(classes)]
    return [rng.choice(some, min(number, len(some)), replace=False) for some in members]


def tile(rows: list[list[Pixels]]) -> Pixels:
    """Arrange rows of equally sized pictures on white: (sheet height, sheet width, 3)."""
    height, width = rows[0][0].shape[:2]
    longest = max(len(row) for row in rows)
    sheet = np.full(((height + GAP) * len(rows) - GAP, (width + GAP) * longest - GAP, 3), 255, dtype=np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = y * (height + GAP), x * (width + GAP)
            sheet[top : top + height, left : left + width] = picture
    return sheet


def _margin(names: list[str], height: int) -> Pixels:
    """A margin with a name for each row of pictures of this height: (sheet height, MARGIN, 3)."""
    margin = Image.new("RGB", (MARGIN, (height + GAP) * len(names) - GAP), "white")
    draw = ImageDraw.Draw(margin)
    for row, name in enumerate(names):
        centre = (MARGIN / 2, row * (height + GAP) + height / 2)
        draw.text(centre, name, fill="black", anchor="mm", font_size=24)
    return np.asarray(margin)


def _save(sheet: Pixels, path: Path) -> None:
    with written_whole(path) as part:
        Image.fromarray(sheet).save(part, format="PNG")


def _list(bags: Bags, chosen: npt.NDArray[np.int64], path: Path, classes: npt.NDArray[np.int64] | None = None) -> None:
    owner = bags.patient_of_image()
    columns: dict[str, object] = {} if classes is None else {"cell_class": classes[chosen]}
    columns |= {
        "patient_id": [bags.patient_ids[owner[index]] for index in chosen],
        "image": [bags.image_names[index] for index in chosen],
    }
    write_table(path, pd.DataFrame(columns))
