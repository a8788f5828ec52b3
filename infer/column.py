"""A column of a result file: declared once, where its value comes from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of predictions.csv or images.csv."""

    name: str
    meaning: str  # a line of infer/README.md
    unit: str = ""
    format: str = ""  # as Python's format() takes it

    def text(self, value: object) -> str:
        """The cell; empty where there is no value."""
        return "" if value is None else format(value, self.format)
