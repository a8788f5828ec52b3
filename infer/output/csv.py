"""The writers of predictions.csv and images.csv. A writer only renders finished patients."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from infer.members.member import Member
from infer.output.columns import Basis, image_fields, prediction_fields
from infer.scoring.result import PatientResult


@dataclass(frozen=True)
class Dialect:
    """How a table is written, for the program that opens it."""

    delimiter: str
    decimal: str
    mark: str  # in front of everything


# A spreadsheet whose language has decimal commas opens points as text, and needs a mark to read UTF-8.
DIALECTS = {"plain": Dialect(",", ".", ""), "excel-fr": Dialect(";", ",", "\ufeff")}
PREDICTIONS, IMAGES = "predictions.csv", "images.csv"


class Writer(Protocol):
    """A result file, written patient by patient in the table's order."""

    name: str  # of the file

    def head(self) -> str:
        """The text before the first patient."""

    def rows(self, result: PatientResult) -> str:
        """The text of one patient."""


class PredictionsWriter:
    """predictions.csv: one row per patient."""

    name = PREDICTIONS

    def __init__(self, members: Sequence[Member[Any]], basis: Basis, dialect: Dialect = DIALECTS["plain"]) -> None:
        self._fields, self._dialect = prediction_fields(members, basis), dialect

    def head(self) -> str:
        """The header line."""
        return self._dialect.mark + csv_text([[field.column.name for field in self._fields]], self._dialect)

    def rows(self, result: PatientResult) -> str:
        """The patient's row; refused and failed patients have no numbers and no decision."""
        return csv_text([[field.text(result, self._dialect.decimal) for field in self._fields]], self._dialect)


class ImagesWriter:
    """images.csv: one row per picture."""

    name = IMAGES

    def __init__(self, members: Sequence[Member[Any]], dialect: Dialect = DIALECTS["plain"]) -> None:
        self._fields, self._dialect = image_fields(members), dialect

    def head(self) -> str:
        """The header line."""
        return self._dialect.mark + csv_text([[field.column.name for field in self._fields]], self._dialect)

    def rows(self, result: PatientResult) -> str:
        """The rows of the patient's pictures."""
        decimal = self._dialect.decimal
        rows = ([field.text((result, image), decimal) for field in self._fields] for image in result.images)
        return csv_text(rows, self._dialect)


def csv_text(rows: Iterable[Sequence[str]], dialect: Dialect = DIALECTS["plain"]) -> str:
    """Rows as CSV text."""
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n", delimiter=dialect.delimiter)
    quoted = csv.writer(text, lineterminator="\n", delimiter=dialect.delimiter, quoting=csv.QUOTE_ALL)
    for row in rows:
        # Python 3.11 does not quote a lone \r, which every reader takes as the end of the row.
        (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
    return text.getvalue()
