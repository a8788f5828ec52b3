"""The output folder: lock, journal, resuming, the writers of CSV files, and the record of the run."""
