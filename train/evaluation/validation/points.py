"""What operating points decide of a hospital's patients, and what these decisions mean at other prevalences."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from infer.bundle.manifest import OperatingPoint
from train.core.arrays import Booleans, Floats
from train.core.performance import Figure, Predictions, estimate, share
from train.evaluation.validation.intervals import at_the_ends
from train.evaluation.validation.scored import Scored

Shares = Callable[[Floats], Floats]  # weights (B, P) -> (B,)


def decided(
    scored: Scored, points: Mapping[str, OperatingPoint], weights: Floats, prevalences: Sequence[float] = ()
) -> pd.DataFrame:
    """Shares of patients by decision, with 95% intervals: operating_point, figure, value, low, high.

    Patients unlike the training patients are referred, as by default, and those whose members disagree too much.

    Args:
        weights: (B, P) how often each patient is drawn in each resample.
        prevalences: shares of malignant patients at which predictive values are given, beside the share here.
    """
    rows = []
    everybody = np.ones(len(scored.labels), np.bool_)
    ill, well = scored.labels == 1, scored.labels == 0
    decidable = ~(scored.held_up | scored.disagree)
    for name, point in points.items():
        malignant = (scored.probability >= point.refer_high) & decidable
        reactive = (scored.probability < point.refer_low) & decidable
        parts = {
            "malignant called malignant": (malignant, ill),
            "malignant called reactive": (reactive, ill),
            "reactive called reactive": (reactive, well),
            "reactive called malignant": (malignant, well),
            "called malignant who are": (ill, malignant),
            "called reactive who are": (well, reactive),
            "referred": (~malignant & ~reactive, everybody),
            "flow cytometries avoided": (reactive, everybody),
        }
        shares = {figure: _share(part, whole) for figure, (part, whole) in parts.items()}
        numbers = {figure: int(whole.sum()) for figure, (_, whole) in parts.items()}
        for prevalence in prevalences:
            where = f"where {100 * prevalence:.3g}% are malignant"
            shares[f"called malignant who are, {where}"] = _predictive(malignant, ill, prevalence)
            shares[f"called reactive who are, {where}"] = _predictive(reactive, well, 1 - prevalence)
        for figure, of in shares.items():
            found = estimate(_figure(of), [Predictions(scored.labels, scored.probability, malignant)], weights)
            found = at_the_ends(found, numbers.get(figure, 0))
            cells = {"value": found.value, "low": found.low, "high": found.high}
            rows.append({"operating_point": name, "figure": figure, **cells})
    return pd.DataFrame(rows)


def _figure(of: Shares) -> Figure:
    return lambda _, weights: of(weights)


def _share(part: Booleans, whole: Booleans) -> Shares:
    return lambda weights: share(weights, part, whole)


def _predictive(called: Booleans, right: Booleans, prevalence: float) -> Shares:
    """Bayes' theorem: who of those called is right, where this share of all patients would be."""
    found, wrong = _share(called, right), _share(called, ~right)

    def of(weights: Floats) -> Floats:
        true, false = prevalence * found(weights), (1 - prevalence) * wrong(weights)
        with np.errstate(invalid="ignore"):
            return np.asarray(true / (true + false))

    return of
