"""The output folder: lock, journal, resuming, CSV writers, and the record of the run."""
