"""Whether a patient is unlike the training patients: a conformal p, and the names of what is unusual.

Each measure of the pictures has a deviation, in units of how far the training patients' 1% and 99% quantiles lie from
their median, so that a skewed measure is judged on either side by itself. A patient's score is the largest deviation.
p is the share of the training patients, and this one, with a score as large, where each of them was judged by all the
others. So among patients like them p is below .05 for about one in twenty (conformal anomaly detection, Laxhammar &
Falkman 2010; leaving one out, as the jackknife does, is not exact).

Age and count are judged by their range: a patient beyond all training patients, and a margin, has the smallest p. The
models are formulas there that nobody has tried.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from infer.bundle.reference import Span, Usual

# What becomes of a patient unlike the training patients: decided `refer`, refused, or only said to be so.
Ood = Literal["refer", "refuse", "warn"]
LOW, HIGH = "low", "high"


@dataclass(frozen=True)
class Likeness:
    """How like the training patients a patient is."""

    p: float
    unusual: tuple[str, ...]  # measure and low or high, the largest deviation first; empty above the bundle's limit


def likeness(measures: Mapping[str, float], usual: Usual) -> Likeness:
    """Judge a patient.

    Args:
        measures: finite, by name. A measure of pictures that is missing, like the JPEG quality of other files, is not
            judged.
    """
    found = {name: deviation(measures[name], span) for name, span in usual.spans.items() if name in measures}
    beyond = [
        f"{name} {LOW if measures[name] < span.low else HIGH}"
        for name, span in usual.ranges.items()
        if not span.low <= measures[name] <= span.high
    ]
    largest = sorted(found.items(), key=lambda one: -abs(one[1]))
    named = [f"{name} {HIGH if by > 0 else LOW}" for name, by in largest if p_value(abs(by), usual) < usual.limit]
    score = float("inf") if beyond else max(map(abs, found.values()), default=0.0)
    return Likeness(p_value(score, usual), (*beyond, *named))


def p_value(score: float, usual: Usual) -> float:
    """The share of patients with a score as large: from 1 / (1 + training patients) to 1."""
    patients = len(usual.scores)
    return (1 + patients - bisect_left(usual.scores, score)) / (1 + patients)


def deviation(value: float, span: Span) -> float:
    """How far a value lies from the middle: 1 at the high end, -1 at the low end."""
    if value >= span.middle:
        return (value - span.middle) / (span.high - span.middle)
    return (value - span.middle) / (span.middle - span.low)
