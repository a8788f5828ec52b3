"""The writers of predictions.csv and images.csv. A writer only renders finished patients."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from infer.members.member import Member
from infer.output.columns import image_fields, prediction_fields
from infer.scoring.result import PatientResult

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

    def __init__(self, members: Sequence[Member[Any]], bundle: str) -> None:
        self._fields = prediction_fields(members, bundle)

    def head(self) -> str:
        """The header line."""
        return csv_text([[field.column.name for field in self._fields]])

    def rows(self, result: PatientResult) -> str:
        """The patient's row; refused and failed patients have no numbers and no decision."""
        return csv_text([[field.text(result) for field in self._fields]])


class ImagesWriter:
    """images.csv: one row per picture."""

    name = IMAGES

    def __init__(self, members: Sequence[Member[Any]]) -> None:
        self._fields = image_fields(members)

    def head(self) -> str:
        """The header line."""
        return csv_text([[field.column.name for field in self._fields]])

    def rows(self, result: PatientResult) -> str:
        """The rows of the patient's pictures."""
        return csv_text([field.text((result, image)) for field in self._fields] for image in result.images)


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV text."""
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        # Python 3.11 does not quote a lone \r, which every reader takes as the end of the row.
        (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
    return text.getvalue()
