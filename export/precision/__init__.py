"""int8 graphs, and the check that they change no patient's decision."""
