"""What would go wrong in a training, found before it: table, pictures, shortcuts, times. Writes one page at most."""
