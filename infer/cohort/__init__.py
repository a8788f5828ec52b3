"""The hospital's table: cells, dates, sexes, and one patient per row. Opens no picture."""
