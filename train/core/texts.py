"""Numbers as text: figures with their intervals, as papers write them."""

from collections.abc import Mapping
from typing import Any


def interval(found: Mapping[Any, Any] | None, *, signed: bool = False) -> str:
    """A figure with its interval, as .912 [.850, .961]."""
    if found is None:
        return "unknown"
    value, low, high = (number(found[name], signed=signed) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def number(value: float, *, signed: bool = False) -> str:
    """Three digits behind the point, without a leading zero."""
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text
