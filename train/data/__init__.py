"""Labelled patients as arrays: crops, folds, augmentation, and input scaling of the networks."""
