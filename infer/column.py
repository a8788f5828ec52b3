"""A column of a result file, declared once, next to the code that computes its value."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of predictions.csv or images.csv."""

    name: str
    meaning: str  # repeated in infer/README.md
    unit: str = ""
    format: str = ""  # format specification for Python's format()

    def text(self, value: object) -> str:
        """The cell's text; empty if there is no value."""
        return "" if value is None else format(value, self.format)
