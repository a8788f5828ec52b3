"""Export of each ensemble member: its graphs and its section of the manifest."""
