"""Nested cross-validation: everything is fitted and selected inside the outer training folds."""
