"""RUN/training.html: what a finished training is worth, for a laboratory doctor and a data scientist."""
