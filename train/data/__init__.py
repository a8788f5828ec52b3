"""Labelled patients as arrays: crops, folds, augmentation, the inputs of networks."""
