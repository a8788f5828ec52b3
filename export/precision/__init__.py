"""The graphs in integers and 16-bit floats, and the proof that no patient changes."""
