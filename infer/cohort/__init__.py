"""The hospital's table: cells, dates, sexes, and one patient a row. Opens no picture."""
