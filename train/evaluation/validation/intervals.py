"""Intervals of shares where the bootstrap says nothing: of 20 patients of whom none is missed, some may be."""

from math import isfinite, sqrt

from train.core.performance import Estimate

Z = 1.959964


def wilson(share: float, number: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share (Wilson 1927)."""
    centre = share + Z**2 / (2 * number)
    half = Z * sqrt(share * (1 - share) / number + Z**2 / (4 * number**2))
    return max((centre - half) / (1 + Z**2 / number), 0.0), min((centre + half) / (1 + Z**2 / number), 1.0)


def at_the_ends(found: Estimate, number: int) -> Estimate:
    """The estimate of a share, with Wilson's interval if it is 0 or 1: every resample of such patients says the same.

    Args:
        number: of patients of whom it is the share; 0: it is no share, and stays as it is.
    """
    if not number or not isfinite(found.value) or 0 < found.value < 1:
        return found
    low, high = wilson(round(found.value), number)
    return Estimate(found.value, low, high)
