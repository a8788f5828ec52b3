"""How the members' probabilities become one, fitted on out-of-fold predictions alone."""
