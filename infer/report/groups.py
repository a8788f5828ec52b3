"""The cells of a page in their groups, each with its caption."""

from collections.abc import Sequence
from dataclasses import dataclass

from infer.report.cells import Cell, Chosen
from infer.report.crops import CHANGED, Shown
from infer.report.texts import Texts, shown


@dataclass(frozen=True)
class CellView:
    """A cell with its caption."""

    uri: str
    missing: str  # why there is no picture
    influence: str
    cell_class: str
    file: str
    alt: str


@dataclass(frozen=True)
class Group:
    """Cells under a title."""

    title: str
    cells: tuple[CellView, ...]
    none: str  # what to say if there are none


def groups(chosen: Chosen, pictures: Sequence[Shown], texts: Texts) -> tuple[Group, ...]:
    """The three groups of cells.

    Args:
        pictures: of the chosen cells, in their order.
    """
    found, rest = [], iter(pictures)
    for name, cells in (("towards", chosen.towards), ("against", chosen.against), ("random", chosen.random)):
        none = texts("cells.none_left" if name == "random" else "cells.none")
        found.append(Group(texts(f"cells.{name}"), tuple(_cell(cell, next(rest), texts) for cell in cells), none))
    return tuple(found)


def _cell(cell: Cell, picture: Shown, texts: Texts) -> CellView:
    file = shown(cell.name)
    influence = "" if cell.influence is None else texts.influence(cell.influence)
    alt = texts("cells.alt", file=file, influence=influence) if influence else texts("cells.alt_plain", file=file)
    missing = "" if picture.uri else texts("cells.changed" if picture.missing == CHANGED else "cells.gone")
    cell_class = "" if cell.cell_class is None else texts("cells.class", number=cell.cell_class)
    return CellView(picture.uri, missing, influence, cell_class, file, alt)
