"""Code shared by all trainings: the training loop, files, checkpoints and performance metrics."""
