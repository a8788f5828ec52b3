"""Combines the members' probabilities into one; fitted only on out-of-fold predictions."""
