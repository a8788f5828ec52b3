"""int8 and float16 graphs, and the check that they change no patient's decision."""
