"""The report's tables and figures, redrawn only from a run folder: `python -m train figures PATIENTS RUN`.

Each module reads the results of a stage from the run folder and writes a PNG, and its numbers as CSV, to RUN/figures.
"""
