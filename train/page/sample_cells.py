"""Sample cells of each unsupervised class, as pictures inside the page."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from train.core.arrays import Booleans, Pixels
from train.data.bags import Bags
from train.figures.cells import samples
from train.members.cells.member import FOLDER

PER_CLASS = 8
QUALITY = 85  # of the JPEGs


@dataclass(frozen=True)
class CellClass:
    """A class of cells."""

    number: int
    pictures: int
    of_malignant: float  # share of the malignant patients' pictures that are in it
    of_reactive: float
    samples: tuple[str, ...]  # data URIs


def read_classes(run: Path, bags: Bags, seed: int = 0) -> tuple[CellClass, ...]:
    """Every class with some of its cells, drawn at random; none if no classes were found in this run."""
    path = run / FOLDER / "classes.csv"
    if not path.exists():
        return ()
    table = pd.read_csv(path, dtype={"patient_id": str}, keep_default_na=False)
    classes = table["cell_class"].to_numpy(np.int64)
    if len(classes) != len(bags.crops):  # of other pictures: an earlier version's, or somebody's own file
        return ()
    malignant = bags.labels[bags.patient_of_image()] == 1
    found = []
    for drawn in samples(classes, seed, PER_CLASS):
        number = int(classes[drawn[0]])
        mine = classes == number
        pictures = tuple(as_jpeg(bags.crops[int(index)].cpu().numpy()) for index in drawn)
        found.append(CellClass(number, int(mine.sum()), _share(mine[malignant]), _share(mine[~malignant]), pictures))
    return tuple(found)


def _share(some: Booleans) -> float:
    return float(some.mean()) if len(some) else 0.0


def as_jpeg(pixels: Pixels) -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
