"""Drift: whether tonight's patients, and those of the nights so far, are like the bundle's training patients."""
