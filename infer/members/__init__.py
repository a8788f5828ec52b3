"""The members of the ensemble, one module each, and their registry."""
