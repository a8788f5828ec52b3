"""The report's tables and figures, redrawn from a run folder alone: `python -m train figures PATIENTS RUN`.

Each file reads what a stage left in the run folder and writes a PNG and the numbers behind it as CSV into RUN/figures.
"""
