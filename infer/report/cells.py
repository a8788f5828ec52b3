"""Which cells a patient's page shows: those that speak most for malignant, those most against, and some at random."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from infer.scoring.result import ImageResult, PatientResult

EACH = 12  # cells of a group
ALL = 3 * EACH


@dataclass(frozen=True)
class Cell:
    """A picture that the patient's result rests on."""

    name: str  # of the file
    content: str  # the first digits of its SHA-256
    influence: float | None  # log odds of malignancy; above 0: it speaks for malignant
    cell_class: int | None


@dataclass(frozen=True)
class Chosen:
    """The cells of a page, none of them twice."""

    towards: tuple[Cell, ...]  # influence above 0, largest first
    against: tuple[Cell, ...]  # influence below 0, smallest first
    random: tuple[Cell, ...]  # of the others, in the order of their files
    used: int  # pictures to choose from

    @property
    def all(self) -> tuple[Cell, ...]:
        """In the order of the groups."""
        return self.towards + self.against + self.random


def choose(result: PatientResult) -> Chosen:
    """The cells to show of a scored patient: always the same ones."""
    used = [image for image in result.images if not image.reason]
    cells = [_cell(image, content) for image, content in zip(used, result.contents, strict=True)]
    towards = sorted((cell for cell in cells if (cell.influence or 0) > 0), key=lambda cell: -(cell.influence or 0))
    against = sorted((cell for cell in cells if (cell.influence or 0) < 0), key=lambda cell: cell.influence or 0)
    towards, against = towards[:EACH], against[:EACH]
    names = {cell.name for cell in (*towards, *against)}
    rest = [cell for cell in cells if cell.name not in names]
    return Chosen(tuple(towards), tuple(against), tuple(_drawn(rest, result.patient_id)), len(cells))


def _cell(image: ImageResult, content: str) -> Cell:
    cell_class = image.values.get("cell_class")
    return Cell(image.image, content, image.influence, None if cell_class is None else int(cell_class))


def _drawn(cells: Sequence[Cell], patient_id: str) -> list[Cell]:
    """Drawn by a digest of patient and file, which is the same on every machine and with every Python."""

    def lot(cell: Cell) -> bytes:
        return hashlib.sha256(f"{patient_id}\0{cell.name}".encode("utf-8", "surrogatepass")).digest()

    drawn = {cell.name for cell in sorted(cells, key=lot)[:EACH]}
    return [cell for cell in cells if cell.name in drawn]
