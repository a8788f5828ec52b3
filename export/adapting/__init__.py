"""A bundle's probabilities and thresholds adapted to a hospital's own patients; its graphs stay as they are."""
